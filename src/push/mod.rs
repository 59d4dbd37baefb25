//! Push rules, made ready to be applied to many events ("Push Rules").
//!
//! A [`RuleSet`] is what the rules of a user say, without the user: who is named by an event is told when it is applied
//! ([`Named`]), so users whose rules agree share a set, and what it says of an event is found out once for all of them.
//! It owns no rules and stores nothing; the rules of users are account data (`account`).

mod pattern;
mod predefined;
mod rules;
#[cfg(test)]
mod tests;

pub use self::{
    predefined::{predefined, update},
    rules::{DEFAULT, Facts, Named, Outcome, RuleSet, RuleSets, Sound},
};
