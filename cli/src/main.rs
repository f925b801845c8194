//! `larder`, the program for people: `run`, `filter`, `render`, `check` and `purge`.
//!
//! What this decides: what the command line and `.env` mean, and how a mistake is told: one line
//! that names the way out. What it leaves out: starting processes (`larder-stack`), carrying out
//! purges (the sidecar), reading filter configurations (`larder-filter`).

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use larder_stack::StackError;
use larder_stack::stack::project_root;

mod check;
mod filter;
mod options;
mod purge;
mod render;
mod run;

use options::{Cli, Verb};

type Result<T> = std::result::Result<T, StackError>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let token_of_shell = purge_token().is_some();
    // Before the command line is read: options take their values from there, too.
    let env_file = larder_project::env_file::load(&project_root())
        .map_err(|mistake| StackError(mistake.to_string()));
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match options::mistake(&error, std::env::args().skip(1)) {
            Some(mistake) => return failed(&mistake),
            None => error.exit(),
        },
    };
    let result = match (cli.command, env_file) {
        (Verb::Run(_) | Verb::Purge(_), Err(mistake)) => Err(mistake),
        (Verb::Run(options), Ok(())) => run::run(options, token_of_shell).await,
        (Verb::Purge(options), Ok(())) => purge::purge(&options).await,
        (Verb::Filter(options), _) => filter::filter(&options).await,
        (Verb::Render(options), _) => render::render(&options),
        (Verb::Check(options), _) => check::check(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(problem: &str) -> ExitCode {
    eprintln!("larder: {problem}");
    ExitCode::FAILURE
}

fn purge_token() -> Option<String> {
    std::env::var("LARDER_PURGE_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| StackError(format!("{}: {error}", path.display())))
}
