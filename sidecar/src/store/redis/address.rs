//! What `REDIS_URL` means.

/// Where Redis is, as `REDIS_URL` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `redis://…`, `rediss://…`
    Server(String),
    /// `redis+cluster://[user:password@]host:port,host:port`: each as a URL of its own.
    Cluster(Vec<String>),
    /// `redis+sentinel://[user:password@]host:port,host:port/MASTER[/database]`
    Sentinel {
        /// Each sentinel as a URL.
        sentinels: Vec<String>,
        /// The master's name.
        master: String,
        /// The master's user, password and database, as a URL without a host.
        credentials: String,
    },
}

impl Address {
    /// Whether it is reached with TLS.
    pub(super) fn has_tls(&self) -> bool {
        let url = match self {
            Self::Server(url) => Some(url),
            Self::Cluster(nodes) => nodes.first(),
            Self::Sentinel { sentinels, .. } => sentinels.first(),
        };
        url.is_some_and(|url| url.starts_with("rediss://"))
    }

    /// Reads `REDIS_URL`. The error says what it may look like.
    pub fn parse(url: &str) -> Result<Self, String> {
        const FORMS: &str = "REDIS_URL is redis://host, rediss://host, redis+cluster://host:port,host:port or \
                             redis+sentinel://host:port,host:port/master";
        let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
        let plain = if scheme.starts_with("rediss") {
            "rediss"
        } else {
            "redis"
        };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let hosts: Vec<&str> = hosts.split(',').filter(|host| !host.is_empty()).collect();
        if hosts.is_empty() {
            return Err(FORMS.to_owned());
        }
        match scheme {
            "redis" | "rediss" if hosts.len() == 1 => Ok(Self::Server(url.to_owned())),
            "redis+cluster" | "rediss+cluster" => Ok(Self::Cluster(
                hosts
                    .iter()
                    .map(|host| format!("{plain}://{credentials}{host}"))
                    .collect(),
            )),
            "redis+sentinel" | "rediss+sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(format!("the master's name is missing; {FORMS}"));
                }
                Ok(Self::Sentinel {
                    sentinels: hosts
                        .iter()
                        .map(|host| format!("{plain}://{host}"))
                        .collect(),
                    master: master.to_owned(),
                    credentials: format!("{plain}://{credentials}master/{database}"),
                })
            }
            _ => Err(FORMS.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_a_cluster_or_sentinels() {
        let server = |url: &str| Ok(Address::Server(url.to_owned()));
        assert_eq!(
            Address::parse("redis://u:p@h:1/2"),
            server("redis://u:p@h:1/2")
        );
        assert_eq!(Address::parse("rediss://h"), server("rediss://h"));
        let nodes = ["rediss://u:p@a:1", "rediss://u:p@b:2"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            Address::parse("rediss+cluster://u:p@a:1,b:2"),
            Ok(Address::Cluster(nodes))
        );
        assert_eq!(
            Address::parse("redis+sentinel://:p@a:1,b:2/main/3"),
            Ok(Address::Sentinel {
                sentinels: vec!["redis://a:1".to_owned(), "redis://b:2".to_owned()],
                master: "main".to_owned(),
                credentials: "redis://:p@master/3".to_owned(),
            })
        );
        for wrong in [
            "",
            "h:1",
            "http://h",
            "redis://",
            "redis://a,b",
            "redis+sentinel://a:1",
        ] {
            assert!(
                Address::parse(wrong).unwrap_err().contains("redis+cluster"),
                "{wrong}"
            );
        }
    }
}
