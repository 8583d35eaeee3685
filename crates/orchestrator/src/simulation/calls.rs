//! Calls out: what `perform` does with a command, against the made-up provider and network.

use std::time::Duration;

use serde_json::json;
use weir_workflow_engine::{
    CallCommand, CallFailure, CallOutcome, CallResult, Command, Document, EffectClass, EffectCommand, OWN, Origin,
    Retry, SendMode, Sent, Timestamp,
};

use super::item::{Flight, Item, Place};
use super::provider::Fate;
use super::rules::Broken;
use super::world::{Lawful, World};
use crate::perform::failure::unproven;
use crate::perform::gate::{Sees, unseen};

impl World<'_> {
    /// Notes intents before they are committed, as the performer does.
    pub(super) fn intend(&mut self, place: Place, commands: &[Command]) {
        for command in commands {
            if let Command::Call(call) = command
                && let Some(effect) = call.effect.as_ref().filter(|effect| effect.mode == SendMode::First)
                && is_recorded(call)
            {
                let recorder = self.recorder(place);
                recorder.intended.insert(effect.key.to_string(), effect.first_sent_at);
            }
        }
    }

    fn recorder(&mut self, place: Place) -> &mut super::world::Recorder {
        let name = self.processes[place.process].node.name.clone();
        self.recorders.entry(name).or_default()
    }

    /// Whether it is proven that no byte of the effect left.
    fn is_proven(&mut self, place: Place, effect: &EffectCommand) -> bool {
        let several = self.several;
        let recorder = self.recorder(place);
        let key = effect.key.to_string();
        let complete = recorder.complete_after.is_none_or(|from| effect.first_sent_at > from);
        let ours = !several || recorder.intended.get(&key) == Some(&effect.first_sent_at);
        !recorder.departed.contains(&key) && complete && ours
    }

    /// Hands a command out.
    pub(super) fn dispatch(&mut self, place: Place, command: Command) {
        let pause = self.within(Duration::from_millis(20));
        let looks = |mode| matches!(mode, SendMode::LookFirst | SendMode::LookOnly);
        let item = match command {
            Command::Call(call) if call.effect.as_ref().is_some_and(|effect| looks(effect.mode)) => {
                Item::Look(place, Box::new(call))
            }
            command => Item::Send(place, Box::new(command)),
        };
        self.after(pause, item);
    }

    /// Looks whether an effect was done.
    pub(super) fn look(&mut self, place: Place, call: CallCommand) -> Lawful {
        let Some(effect) = call.effect.clone() else {
            return Ok(());
        };
        let EffectClass::FindBy { consistent, settle } = call.class else {
            self.answer(place, call.call, Err(unproven("it cannot be looked for")));
            return Ok(());
        };
        if self.broken == Broken::NotLookedFor {
            return self.send(place, Command::Call(call));
        }
        if self.is_troubled() {
            let failure = CallFailure {
                sent: Sent::Maybe,
                ..failure("connect", None, Sent::Never, true)
            };
            self.answer(place, call.call, Err(failure));
            return Ok(());
        }
        if self.provider.shows(&call.operation, reference(&call), self.now) {
            let found = CallOutcome::Done {
                output: output(reference(&call)),
            };
            let result = result(found, Origin::Found);
            let back = self.way.1;
            self.after(back, Item::Return(place, call.call, Box::new(result)));
            return Ok(());
        }
        let proven = self.is_proven(place, &effect);
        match unseen(&effect, Sees { consistent, settle }, call.timeout, || proven, self.now) {
            Ok(()) => {
                let pause = self.on_the_way();
                self.after(pause, Item::Send(place, Box::new(Command::Call(call))));
            }
            Err(failure) => self.answer(place, call.call, Err(failure)),
        }
        Ok(())
    }

    fn is_troubled(&mut self) -> bool {
        let trouble = if self.calm { 0 } else { self.trouble / 2 };
        self.chance.percent(trouble)
    }

    /// Sends the request of a command.
    pub(super) fn send(&mut self, place: Place, command: Command) -> Lawful {
        // What belongs to a run that left memory was dropped with it.
        let stays = |live: &super::world::Live| live.stay == place.stay;
        if !self.processes[place.process].runs.get(&place.run).is_some_and(stays) {
            return Ok(());
        }
        if let Command::Call(call) = &command
            && let Some(effect) = &call.effect
        {
            self.prefix_is_on_disk(place, call.call, effect.key)?;
            if call.connector == OWN {
                return self.perform_own(place, call);
            }
            let proven = effect.mode != SendMode::IfNeverSent || self.is_proven(place, effect);
            if !proven && self.broken != Broken::BlindResent {
                self.answer(place, call.call, Err(unproven("it may have left")));
                return Ok(());
            }
        }
        self.ask_budget(place, command)
    }

    /// The request of a command leaves.
    pub(super) fn depart(&mut self, place: Place, command: Command) -> Lawful {
        if self.live(place).is_none() {
            self.give_back(place, command.call());
            return Ok(());
        }
        // Whoever lost its place stood still for longer than its lease, and looks at that before the first byte.
        if command.durable_first() && self.in_charge() != Some(place.process) && self.broken != Broken::LeaseIgnored {
            let over = failure("lease_over", None, Sent::Never, true);
            self.answer(place, command.call(), Err(over));
            return Ok(());
        }
        if self.dies_here() {
            self.crash(false);
            return Ok(());
        }
        self.count_departure(place.process)?;
        let trouble = if self.calm { 0 } else { self.trouble };
        let fate = match self.away_until.is_some_and(|until| self.now < until) {
            true => *self.chance.pick(&Fate::OF_ONE_AWAY),
            false => Fate::by(&mut self.chance, trouble),
        };
        let timeout = match &command {
            Command::Call(call) => call.timeout,
            Command::Read(read) => read.timeout,
        };
        let flight = Flight {
            place,
            key: self.key_of(place, &command),
            command,
            fate,
            deadline: self.now.plus(timeout),
        };
        if fate != Fate::NotConnected
            && let Command::Call(call) = &flight.command
            && let Some(effect) = &call.effect
            && is_recorded(call)
        {
            let key = effect.key.to_string();
            self.recorder(place).departed.insert(key);
        }
        self.fly(flight);
        if self.dies_here() {
            self.crash(false);
        }
        Ok(())
    }

    fn key_of(&self, place: Place, command: &Command) -> String {
        match command {
            Command::Call(CallCommand {
                effect: Some(effect), ..
            }) if self.broken == Broken::KeyWithRunId => format!("{}.{}", effect.key, place.run),
            Command::Call(call) if self.broken == Broken::DigestIgnored && call.effect.is_some() => {
                let live = self.processes[place.process].runs.get(&place.run);
                let root = live.map(|live| live.driver.run().state.head().root_id);
                format!("{root:?}.{}", call.step)
            }
            Command::Call(CallCommand {
                effect: Some(effect), ..
            }) => effect.key.to_string(),
            Command::Call(_) | Command::Read(_) => String::new(),
        }
    }

    /// When the request arrives, and when its sender hears something without an answer.
    fn fly(&mut self, flight: Flight) {
        let (place, call, deadline) = (flight.place, flight.command.call(), flight.deadline);
        let on_the_way = self.now.plus(self.on_the_way());
        match flight.fate {
            Fate::Answered | Fate::TooMany | Fate::Invalid | Fate::ErrorAfter | Fate::ErrorBefore => {
                self.at(on_the_way, Item::Arrive(Box::new(flight)));
            }
            Fate::NotConnected => self.fail_at(
                on_the_way,
                place,
                &flight.command,
                failure("connect", None, Sent::Never, true),
            ),
            Fate::RequestLost => self.fail_at(
                deadline,
                place,
                &flight.command,
                failure("timeout", None, Sent::Maybe, true),
            ),
            Fate::AnswerLost => {
                self.fail_at(
                    deadline,
                    place,
                    &flight.command,
                    failure("timeout", None, Sent::Maybe, true),
                );
                self.at(on_the_way, Item::Arrive(Box::new(flight)));
            }
            Fate::TooSlow => {
                self.fail_at(
                    deadline,
                    place,
                    &flight.command,
                    failure("timeout", None, Sent::Maybe, true),
                );
                self.at(deadline, Item::Arrive(Box::new(flight)));
            }
            Fate::Broken => {
                let lost = failure("connection_lost", None, Sent::Maybe, true);
                self.fail_at(on_the_way, place, &flight.command, lost);
                let remaining = deadline.since(self.now);
                let works = self.within(remaining);
                self.after(works, Item::Arrive(Box::new(flight)));
            }
        }
        self.note(|| format!("request {call} of {} is on its way", place.run));
    }

    /// A request reaches the provider.
    pub(super) fn arrive(&mut self, flight: Flight) -> Lawful {
        let Flight {
            place,
            command,
            fate,
            key,
            ..
        } = flight;
        let (operation, reference) = match &command {
            Command::Call(call) => (call.operation.clone(), reference(call).to_owned()),
            Command::Read(read) => (read.operation.clone(), "read".to_owned()),
        };
        self.count_arrival(place.process)?;
        let mut well = true;
        if fate.is_done() {
            well = self
                .provider
                .carry_out(&operation, &reference, &key, fate == Fate::ErrorAfter, self.now);
        }
        let back = self.now.plus(self.on_the_way());
        match fate {
            Fate::Answered if well => {
                let done = CallOutcome::Done {
                    output: output(&reference),
                };
                let done = Box::new(result(done, Origin::Sent));
                self.at(back, Item::Return(place, command.call(), done));
            }
            Fate::Answered | Fate::ErrorAfter | Fate::ErrorBefore => {
                self.fail_at(back, place, &command, failure("http_500", Some(500), Sent::Maybe, true));
            }
            Fate::TooMany => {
                let refused = CallFailure {
                    retry: Retry::Retryable {
                        after: Some(Duration::from_secs(2)),
                    },
                    ..failure("rate_limited", Some(429), Sent::Never, true)
                };
                self.fail_at(back, place, &command, refused);
            }
            Fate::Invalid => self.fail_at(back, place, &command, failure("invalid", Some(400), Sent::Never, false)),
            Fate::NotConnected | Fate::RequestLost | Fate::AnswerLost | Fate::Broken | Fate::TooSlow => {}
        }
        Ok(())
    }

    fn on_the_way(&mut self) -> Duration {
        let (least, most) = self.way;
        least + self.within(most - least)
    }

    /// The sender hears of a failure. One that proves that nothing was done is in its record before the run hears.
    fn fail_at(&mut self, at: Timestamp, place: Place, command: &Command, failure: CallFailure) {
        let refused = match command {
            Command::Call(call) if failure.sent == Sent::Never && is_recorded(call) => {
                call.effect.as_ref().map(|effect| effect.key.to_string())
            }
            Command::Call(_) | Command::Read(_) => None,
        };
        let failed = Box::new(result(CallOutcome::Failed(failure), Origin::Sent));
        self.at(at, Item::Return(place, command.call(), failed));
        if let Some(key) = refused {
            self.recorder(place).departed.remove(&key);
        }
    }

    pub(super) fn answer(
        &mut self,
        place: Place,
        call: weir_workflow_engine::CallId,
        answer: Result<Document, CallFailure>,
    ) {
        let outcome = match answer {
            Ok(output) => CallOutcome::Done { output },
            Err(failure) => CallOutcome::Failed(failure),
        };
        let pause = self.within(Duration::from_millis(20));
        self.after(
            pause,
            Item::Return(place, call, Box::new(result(outcome, Origin::Sent))),
        );
    }
}

/// Whether departures of the call are recorded.
fn is_recorded(call: &CallCommand) -> bool {
    matches!(call.class, EffectClass::Blind | EffectClass::FindBy { .. })
}

/// What a call asks for, whatever key it carries.
pub(super) fn reference(call: &CallCommand) -> &str {
    call.args
        .value()
        .get("ref")
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default()
}

fn output(reference: &str) -> Document {
    Document::from_value(json!({ "ref": reference, "ok": true }))
}

pub(super) fn result(outcome: CallOutcome, origin: Origin) -> CallResult {
    CallResult {
        outcome,
        exchanges: Vec::new(),
        origin,
    }
}

pub(super) fn failure(code: &str, http_status: Option<u16>, sent: Sent, retryable: bool) -> CallFailure {
    CallFailure {
        code: code.to_owned(),
        message: format!("it ended in {code}"),
        http_status,
        sent,
        retry: match retryable {
            true => Retry::Retryable { after: None },
            false => Retry::Permanent,
        },
    }
}
