//! `larder render`: Envoy's configuration and the filter's as files, for an Envoy that runs
//! elsewhere; or what somebody's own configuration needs, printed.

use std::path::Path;

use larder_stack::StackError;
use larder_stack::render::{EnvoyConfig, FILTER_FILE, filter_config};
use larder_stack::snippet::{Module, Snippet};

use crate::options::Render;
use crate::{Result, read};

pub(crate) fn render(options: &Render) -> Result<()> {
    if options.snippet {
        print!("{}", snippet(options)?);
        return Ok(());
    }
    let bind = options.bind.to_string();
    let config = EnvoyConfig {
        listen: (&bind, options.port),
        admin_port: options.admin_port,
        metrics: options.metrics_port.map(|port| (bind.as_str(), port)),
        host: options.host.as_deref(),
        run_dir: &options.run_dir.clone().unwrap_or_default(),
        access_log: "/dev/stdout",
        origins: &options.origins,
        sidecars: std::slice::from_ref(&options.sidecar),
        health_path: &options.health_path,
        health_interval: "10s",
        custom_methods: false,
    };
    let envoy = config
        .render(include_str!("../../envoy/envoy.yaml"))
        .map_err(StackError)?;
    let template = include_str!("../../envoy/filter.ecds.json");
    let filter = filter_config(
        template,
        Path::new(&options.wasm),
        &read(Path::new(&options.config))?,
    );
    let out = options.out.clone().unwrap_or_default();
    let write = |name: &str, text: String| {
        std::fs::write(out.join(name), text).map_err(|error| StackError(format!("{name}: {error}")))
    };
    write("envoy.yaml", envoy)?;
    write(FILTER_FILE, filter.map_err(StackError)?)
}

fn snippet(options: &Render) -> Result<String> {
    let snippet = Snippet {
        filter: &options.name,
        cluster: &options.cluster,
        sidecar: &options.sidecar,
        module: Module::new(&options.wasm, options.sha256.as_deref()).map_err(StackError)?,
        config: &read(Path::new(&options.config))?,
    };
    snippet.render().map_err(StackError)
}
