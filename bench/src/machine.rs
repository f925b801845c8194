//! The machine: cores, processor time, versions of the programs.

use std::path::Path;
use std::process::Command;

use larder_stack::stack::{envoy_binary, project_root};

/// Where servers run.
pub(crate) const SERVER_CORE: usize = 0;
/// Where the load, the origin and Larder's sidecar run.
pub(crate) const LOAD_CORE: usize = 1;

/// `/proc` counts processor time in hundredths of a second, on every Linux.
const MICROS_PER_TICK: f64 = 10_000.0;

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    ticks: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name, in brackets, may hold anything; what follows it is numbers.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            ticks: ticks(11)? + ticks(12)?,
        })
    }
}

/// All processes there are.
fn processes() -> Vec<(u32, Stat)> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let process = |entry: std::fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        Some((
            id,
            Stat::read(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?,
        ))
    };
    folder.flatten().filter_map(process).collect()
}

/// `root` and all that descend from it.
fn tree(root: u32, processes: &[(u32, Stat)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(
            processes
                .iter()
                .filter(|(id, stat)| stat.parent == parent && *id != parent)
                .map(|(id, _)| *id),
        );
        at += 1;
    }
    found
}

fn ticks_of(root: u32, processes: &[(u32, Stat)]) -> f64 {
    let family = tree(root, processes);
    processes
        .iter()
        .filter(|(id, _)| family.contains(id))
        .map(|(_, stat)| stat.ticks)
        .sum()
}

/// User and system time of a process and its descendants so far, in microseconds.
pub(crate) fn cpu_micros(root: u32) -> f64 {
    ticks_of(root, &processes()) * MICROS_PER_TICK
}

/// Memory of a process that is in the machine's, in bytes.
pub(crate) fn resident_bytes(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|number| number.trim().parse::<f64>().ok())
        .unwrap_or(0.0)
        * 1024.0
}

/// All threads of a process and its descendants on one core.
pub(crate) fn pin(root: u32, core: usize) -> Result<(), String> {
    for id in tree(root, &processes()) {
        let pinned = Command::new("taskset")
            .args(["-a", "-c", "-p", &core.to_string(), &id.to_string()])
            .output();
        let pinned = pinned.map_err(|error| format!("taskset: {error}"))?;
        if !pinned.status.success() && Path::new(&format!("/proc/{id}")).exists() {
            return Err(format!(
                "taskset: {}",
                String::from_utf8_lossy(&pinned.stderr).trim()
            ));
        }
    }
    Ok(())
}

/// Whether there is such a program.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|found| found.status.success())
}

/// Bytes free where `folder` is.
pub(crate) fn free_bytes(folder: &Path) -> u64 {
    let Ok(said) = Command::new("df")
        .args(["-B1", "--output=avail"])
        .arg(folder)
        .output()
    else {
        return 0;
    };
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines()
        .nth(1)
        .and_then(|free| free.trim().parse().ok())
        .unwrap_or(0)
}

/// Kernel and processor.
pub(crate) fn hardware() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    // Not what this process may use: that is one core.
    let cores = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown", |(_, name)| name.trim());
    let release = read("/proc/sys/kernel/osrelease");
    // What follows the number is the builder's affair.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    format!("{cores} cores of {model}; Linux {kernel}")
}

/// The programs' versions, as they tell them.
pub(crate) fn versions() -> String {
    let envoy = envoy_binary(&project_root()).unwrap_or_else(|_| "envoy".into());
    let asked: [(&str, &Path, &str); 4] = [
        ("Envoy", &envoy, "--version"),
        ("nginx", Path::new("nginx"), "-v"),
        ("Varnish", Path::new("varnishd"), "-V"),
        ("wrk", Path::new("wrk"), "-v"),
    ];
    let version = |(name, program, option): (&str, &Path, &str)| {
        let said = Command::new(program).arg(option).output().ok()?;
        let said = [said.stdout, said.stderr].concat();
        Some(format!(
            "{name} {}",
            version_in(&String::from_utf8_lossy(&said))?
        ))
    };
    asked
        .into_iter()
        .filter_map(version)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The first three numbers with points between them.
fn version_in(text: &str) -> Option<String> {
    let words = text.split(|character: char| !character.is_ascii_digit() && character != '.');
    let is_version = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() == 3 && parts.iter().all(|part| !part.is_empty())
    };
    words
        .map(|word| word.trim_matches('.'))
        .find(is_version)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "17 (a) b) S 4 17 17 0 -1 4194560 99 0 0 0 250 50 0 0 20 0 9 0 12345 0 0";

    #[test]
    fn a_stat_line_is_read_behind_the_name_whatever_that_holds() {
        assert_eq!(
            Stat::read(STAT),
            Some(Stat {
                parent: 4,
                ticks: 300.0
            })
        );
        assert_eq!(Stat::read("17 (a) S 4"), None);
        assert_eq!(Stat::read(""), None);
    }

    #[test]
    fn a_server_is_summed_with_its_children_and_theirs() {
        let process = |id, parent, ticks| (id, Stat { parent, ticks });
        let all = [
            process(1, 0, 1.0),
            process(5, 1, 2.0),
            process(7, 5, 4.0),
            process(9, 7, 8.0),
            process(8, 1, 16.0),
        ];
        assert_eq!(tree(5, &all), [5, 7, 9]);
        assert!((ticks_of(5, &all) - 14.0).abs() < f64::EPSILON);
    }

    #[test]
    fn versions_are_found_in_what_the_programs_say() {
        let said = "envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(version_in(said).as_deref(), Some("1.40.0"));
        assert_eq!(
            version_in("nginx version: nginx/1.22.1").as_deref(),
            Some("1.22.1")
        );
        assert_eq!(
            version_in("varnishd (varnish-7.1.1 revision 7cee)").as_deref(),
            Some("7.1.1")
        );
        assert_eq!(
            version_in("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012").as_deref(),
            Some("4.1.0")
        );
        assert_eq!(version_in("none"), None);
    }
}
