//! One step of an exchange: what time it is, and what is to be done.

use larder_contract::http_time::Timestamp;

use super::effect::{CacheCommand, Command, Effects, Question};

/// A step under way. It collects what the event brings about.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Timestamp,
    pub(super) effects: Effects,
}

impl Step {
    /// A step in which nothing has been done yet.
    pub(super) fn at(now: Timestamp) -> Self {
        Self {
            now,
            effects: Effects::default(),
        }
    }

    /// Something for this client.
    pub(super) fn command(&mut self, command: Command) {
        self.effects.commands.push(command);
    }

    /// The same, several.
    pub(super) fn commands(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.effects.commands.extend(commands);
    }

    /// Something that concerns all requests.
    pub(super) fn cache(&mut self, command: CacheCommand) {
        self.command(command.into());
    }

    /// What the next event answers.
    pub(super) fn ask(&mut self, question: Question) {
        self.effects.question = Some(question);
    }
}
