//! `larder filter`: another filter configuration for a cache that runs.

use std::path::Path;

use larder_stack::stack::{filter_module, project_root};
use larder_stack::{StackError, swap};

use crate::options::Filter;
use crate::run::run_dir;
use crate::{Result, read};

pub(crate) async fn filter(options: &Filter) -> Result<()> {
    let folder = run_dir(options.port);
    let admin = swap::running(&folder).await;
    let admin = admin.ok_or_else(|| {
        StackError(format!(
            "nothing runs on port {0}; start it: make run port={0}",
            options.port
        ))
    })?;
    let wasm = filter_module(&project_root())?;
    swap::swap(
        &folder,
        &wasm,
        &admin,
        &read(Path::new(&options.config))?,
        true,
    )
    .await?;
    println!("Envoy on port {} now uses {}", options.port, options.config);
    Ok(())
}
