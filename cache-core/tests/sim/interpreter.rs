//! The one place where the simulations carry out effects. Both matches are exhaustive, and a world
//! has to say what each means in it: nothing is dropped in silence.

use std::sync::Arc;

use larder_cache_core::cache_status::CacheStatus;
use larder_cache_core::collapse::CollapseKey;
use larder_cache_core::exchange::{
    Arrive, CacheCommand, Command, Effects, ForwardedRequest, Outcome, Question, RefreshOrder,
    Reply, ResponseChange, StoreQuestion,
};
use larder_cache_core::fields::Fields;
use larder_cache_core::refresh;
use larder_cache_core::stored_response::StoredResponse;
use larder_contract::http_time::Timestamp;
use larder_contract::key::{KeyDigest, PrimaryKey};
use larder_contract::store_api::Fence;

/// What all requests of a world share. `by` names who changes it: a stream or a refresh.
pub(crate) trait Shared {
    /// Who acts.
    type By: Copy;

    fn keep(
        &mut self,
        by: Self::By,
        key: PrimaryKey,
        stored: Arc<StoredResponse>,
        fence: Option<Fence>,
        local: bool,
    );
    fn publish(
        &mut self,
        by: Self::By,
        key: CollapseKey,
        outcome: Outcome,
        uncacheable_until: Timestamp,
    );
    fn mark_uncacheable(&mut self, by: Self::By, key: PrimaryKey, until: Timestamp);
    fn release(&mut self, by: Self::By, key: KeyDigest, fence: Fence, uncacheable_ms: u64);
    fn invalidate(&mut self, by: Self::By, keys: Vec<KeyDigest>, is_doubtful: bool);
}

/// A world in which exchanges run.
pub(crate) trait World: Shared {
    fn reply(&mut self, by: Self::By, reply: Reply);
    fn pass(&mut self, by: Self::By, change: ResponseChange);
    fn abort(&mut self, by: Self::By);
    fn remind(&mut self, by: Self::By, at: Timestamp);
    fn order_refresh(&mut self, by: Self::By, order: RefreshOrder);
    fn report(&mut self, by: Self::By, status: CacheStatus);

    fn look_up_local(&mut self, by: Self::By);
    fn arrive(&mut self, by: Self::By, arrive: Arrive);
    fn ask_store(&mut self, by: Self::By, question: StoreQuestion);
    fn forward(&mut self, by: Self::By, change: ForwardedRequest);
}

/// A world in which background refreshes run.
pub(crate) trait Refreshes: Shared {
    fn ask_store_for_refresh(&mut self, by: Self::By, question: StoreQuestion);
    fn fetch(&mut self, by: Self::By, fields: Fields);
}

/// A request begins: what level 1 holds is its first event.
pub(crate) fn begin<W: World>(world: &mut W, by: W::By, state: &str, effects: Effects) {
    carry_out(world, by, effects);
    if state == "Local" {
        world.look_up_local(by);
    }
}

/// Carries out what an exchange wants: its commands, and behind them its question.
pub(crate) fn carry_out<W: World>(world: &mut W, by: W::By, effects: Effects) {
    for command in effects.commands {
        match command {
            Command::Reply(reply) => world.reply(by, reply),
            Command::PassResponse(change) => world.pass(by, change),
            Command::Abort => world.abort(by),
            Command::RemindAt(time) => world.remind(by, time),
            Command::Refresh(order) => world.order_refresh(by, *order),
            Command::Report(status) => world.report(by, status),
            Command::Cache(command) => change(world, by, command),
        }
    }
    match effects.question {
        None => {}
        Some(Question::Arrive(arrive)) => world.arrive(by, arrive),
        Some(Question::AskStore(question)) => world.ask_store(by, question),
        Some(Question::Forward(change)) => world.forward(by, change),
    }
}

/// The same for a background refresh.
pub(crate) fn carry_out_refresh<W: Refreshes>(world: &mut W, by: W::By, step: refresh::Step) {
    step.commands
        .into_iter()
        .for_each(|command| change(world, by, command));
    match step.question {
        None => {}
        Some(refresh::Question::AskStore(question)) => world.ask_store_for_refresh(by, question),
        Some(refresh::Question::Fetch(fields)) => world.fetch(by, fields),
    }
}

fn change<W: Shared>(world: &mut W, by: W::By, command: CacheCommand) {
    match command {
        CacheCommand::Keep {
            key,
            stored,
            fence,
            local_only,
        } => world.keep(by, key, stored, fence, local_only),
        CacheCommand::Publish {
            key,
            outcome,
            uncacheable_until,
        } => world.publish(by, key, outcome, uncacheable_until),
        CacheCommand::MarkUncacheable { key, until } => world.mark_uncacheable(by, key, until),
        CacheCommand::ReleaseLease {
            key,
            fence,
            uncacheable_ms,
        } => world.release(by, key, fence, uncacheable_ms),
        CacheCommand::Invalidate(keys) => world.invalidate(by, keys, false),
        CacheCommand::InvalidateDoubtful(keys) => world.invalidate(by, keys, true),
    }
}
