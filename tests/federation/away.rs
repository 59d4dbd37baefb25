//! One of the two is away for a while: all arrives, once, and in order.

use std::time::Duration;

use crate::{
    common::User,
    identity::Identity,
    keys::{another, sees},
    table::Outcome,
    world::{Case, Played, Side, World, messages, texts, until, until_within},
};

const HEARTH_AWAY: &str = "Hearth is killed, and comes back";
const SYNAPSE_AWAY: &str = "Synapse is killed, and comes back";
pub(crate) const NAMES: [&str; 2] = [HEARTH_AWAY, SYNAPSE_AWAY];

const VERSION: &str = "12";

/// More than one transaction has.
const MESSAGES: usize = 70;

/// How long it may take to try a server again that was away, if it says nothing itself.
const TRIED_AGAIN: Duration = Duration::from_mins(2);

pub(crate) async fn plays(world: &mut World) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for side in [Side::Hearth, Side::Synapse] {
        let case = Case::new(world, side, VERSION).await;
        let result = hearth_away(world, &case, side).await;
        outcomes.push(Outcome { scenario: HEARTH_AWAY, side, version: VERSION, result });
        let case = Case::new(world, side, VERSION).await;
        let result = synapse_away(world, &case, side).await;
        outcomes.push(Outcome { scenario: SYNAPSE_AWAY, side, version: VERSION, result });
    }
    outcomes
}

/// Who is here, and who is on Synapse.
fn sides(case: &Case, side: Side) -> (&User, &User) {
    match side {
        Side::Hearth => (&case.owner, &case.guest),
        Side::Synapse => (&case.guest, &case.owner),
    }
}

async fn hearth_away(world: &mut World, case: &Case, side: Side) -> Played {
    let room = case.shared().await?;
    let (here, there) = sides(case, side);
    let first = Identity::published(there, 1).await;
    sees(here, &[&first]).await?;
    world.hearth.server.kill().await;
    say(there, &room).await;
    let (second, third) = (another(there, 2).await?, another(there, 3).await?);
    world.hearth.start_again().await;
    arrive(here, &room).await?;
    sees(here, &[&first, &second, &third]).await
}

async fn synapse_away(world: &mut World, case: &Case, side: Side) -> Played {
    let room = case.shared().await?;
    let (here, there) = sides(case, side);
    let first = Identity::published(here, 1).await;
    sees(there, &[&first]).await?;
    world.synapse.kill();
    say(here, &room).await;
    // It is given up for the moment: nothing waits in its queue any more.
    let server = world.synapse.name.clone();
    until("the server is behind", async || {
        let output = world.hearth.run(&["federation", "list"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().any(|line| line.contains(&server) && line.contains("behind")).then_some(())
    })
    .await?;
    here.send_text(&room, &format!("{MESSAGES}")).await;
    let (second, third) = (another(here, 2).await?, another(here, 3).await?);
    world.synapse.start_again().await;
    until_within(TRIED_AGAIN, "all messages arrive", async || {
        let events = messages(there, &room).await;
        let expected: Vec<String> = (0..=MESSAGES).map(|number| number.to_string()).collect();
        (texts(&events) == expected).then_some(())
    })
    .await?;
    sees(there, &[&first, &second, &third]).await
}

async fn say(user: &User, room: &str) {
    for number in 0..MESSAGES {
        user.send_text(room, &number.to_string()).await;
    }
}

async fn arrive(user: &User, room: &str) -> Played {
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    until("all messages arrive", async || {
        let events = messages(user, room).await;
        (texts(&events) == expected).then_some(())
    })
    .await
}
