//! Weeks with outages at random: no connection stays unchecked for longer than a day, unless the provider was away.

use std::time::Duration;

use token_vault_sandbox::AppBlock;
use token_vault_tests::eventually_async;
use token_vault_tests::fleet::Dice;
use token_vault_tests::prelude::*;

use super::passes::{Trouble, begin, connect_many, end, validated};

/// How many days pass; `TOKEN_VAULT_DAYS` asks for another number. Ninety take some minutes.
const DAYS: u32 = 30;
const STEP: u32 = 6;
const HOUR: Duration = Duration::from_secs(3_600);
/// The longest time between two validations.
const LONGEST: i64 = 25 * 3_600;
const LIMIT: Duration = Duration::from_secs(90);

async fn nobody_is_forgotten(world: &World, when: &str) {
    eventually_async(&format!("{when}: every token was validated within 25 hours"), LIMIT, async || {
        let since = world.sandbox.clock().now() - LONGEST;
        validated(world).await.values().all(|at| *at >= since).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_stays_unchecked_for_longer_than_a_day_and_an_outage() {
    let days = std::env::var("TOKEN_VAULT_DAYS").map_or(DAYS, |days| days.parse().expect("a number"));
    let world = World::builder(Backend::Sqlite).moving_time().start().await;
    connect_many(&world, "person", 12).await;
    let (secrets, mut dice) = (world.sandbox.app().secrets, Dice::new(90));
    let (mut hour, mut outages) = (0, 0);
    while hour < days * 24 {
        let when = format!("day {}, hour {}", hour / 24, hour % 24);
        // One outage in four days, of up to two days.
        let lasts = if dice.below(16) == 0 { 1 + u32::try_from(dice.below(8)).expect("few") } else { 0 };
        if lasts > 0 {
            let code = FaultKind::error;
            let after = u32::try_from(dice.below(12)).expect("few");
            let trouble = match dice.below(6) {
                0 => Trouble::Fault(code(400, 4)),
                1 => Trouble::Fault(code(400, 100)),
                2 => Trouble::Fault(code(500, 2)),
                3 => Trouble::Fault(FaultKind::Reset),
                4 => Trouble::WrongSecret,
                _ => Trouble::Blocked(AppBlock::Blocked),
            };
            begin(&world, &trouble, after);
            for _ in 0..lasts {
                world.advance(STEP * HOUR).await;
            }
            end(&world, &secrets);
            outages += 1;
        } else {
            world.advance(STEP * HOUR).await;
        }
        hour += STEP * lasts.max(1);
        nobody_is_forgotten(&world, &when).await;
    }
    let tokens = world.admin().list().await.expect("a list").tokens;
    assert_eq!(tokens.len(), 12);
    assert!(tokens.iter().all(|token| token.usable), "no outage cost a token: {tokens:#?}");
    eprintln!("{days} days, {outages} outages");
    assert!(outages >= days / 14, "only {outages} outages");
}
