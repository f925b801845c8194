//! How tests break the parts of a system, and put them right again.

use nix::sys::signal::Signal;

use super::{Stack, origin_name};
use crate::error::Result;
use crate::launch;

impl Stack {
    /// Envoy's process number.
    pub fn envoy_id(&self) -> u32 {
        self.envoy.id()
    }

    /// Ends Envoy without warning.
    pub fn kill_envoy(&mut self) {
        self.envoy.kill();
    }

    /// Sends Envoy a signal: stopped, it takes connections and never answers.
    pub fn signal_envoy(&self, signal: Signal) {
        self.envoy.signal(signal);
    }

    /// Starts Envoy again with what it had, where its port was free, on another one.
    pub async fn restart_envoy(&mut self) -> Result<()> {
        self.envoy.kill();
        self.envoy = launch::envoy(&self.run_dir, &self.settings)?;
        self.wait_until_served().await
    }

    /// Ends the sidecar without warning.
    pub fn kill_sidecar(&mut self) {
        if let Some((process, _)) = &mut self.sidecar {
            process.kill();
        }
    }

    /// Stops the sidecar's clock: it takes connections and never answers.
    pub fn pause_sidecar(&self) {
        self.signal_sidecar(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume_sidecar(&self) {
        self.signal_sidecar(Signal::SIGCONT);
    }

    fn signal_sidecar(&self, signal: Signal) {
        if let Some((process, _)) = &self.sidecar {
            process.signal(signal);
        }
    }

    /// Starts the sidecar again where it was.
    pub async fn restart_sidecar(&mut self) -> Result<()> {
        let Some((mut process, address)) = self.sidecar.take() else {
            return Ok(());
        };
        process.kill();
        self.sidecar = Some(launch::sidecar(&self.settings, &self.run_dir, &address).await?);
        Ok(())
    }

    /// Ends a mock origin without warning.
    pub fn kill_origin(&mut self, index: usize) {
        if let Some((process, _)) = self.origins.get_mut(index) {
            process.kill();
        }
    }

    /// Starts a mock origin again where it was.
    pub async fn restart_origin(&mut self, index: usize) -> Result<()> {
        let Some(address) = self.origins.get(index).map(|(_, address)| address.clone()) else {
            return Ok(());
        };
        self.kill_origin(index);
        self.origins[index] = launch::origin(&origin_name(index), &self.run_dir, &address).await?;
        Ok(())
    }
}
