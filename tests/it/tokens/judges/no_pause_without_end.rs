//! No pause without an end, and no retry delay for ever: whatever a caller reports again and again, doing as it is told
//! each time, it is told to pause (with an event that will end the pause), to do something else, or to wait longer.

use super::*;

const AN_HOUR: i64 = 3_600;
/// Within so many reports the delay has grown to an hour.
const STEPS: usize = 40;

/// What goes wrong for the vault's own calls with one token.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Nothing,
    Data(GraphError),
    Inspector(GraphError),
}

const REPORTED: [GraphError; 6] = [
    error(190, Some(460), "x"),
    error(200, None, "(#200) Requires ads_read permission"),
    error(2, None, "Service temporarily unavailable"),
    error(100, None, "Invalid appsecret_proof provided in the API argument"),
    error(368, Some(1_390_008), "abuse"),
    error(3, None, "capability"),
];

const TROUBLES: [Trouble; 7] = [
    Trouble::Nothing,
    Trouble::Data(error(17, Some(2_446_079), "limit")),
    Trouble::Data(error(368, Some(1_390_008), "abuse")),
    Trouble::Data(error(190, Some(460), "x")),
    Trouble::Data(error(10, None, "permission")),
    Trouble::Inspector(error(4, None, "limit")),
    Trouble::Inspector(error(100, None, "Unsupported request")),
];

/// How long the caller is told to wait, in whole seconds.
fn told(answer: &pb::ReportTokenErrorResponse) -> i64 {
    let wait = answer.retry_after.expect("it tells when");
    wait.seconds + i64::from(wait.nanos > 0)
}

/// A connection, and what it was answered so far.
struct Obedient {
    id: String,
    trouble: Trouble,
    reported: GraphError,
    waits: Vec<i64>,
    /// When it reports again.
    next: i64,
}

impl Obedient {
    /// Checks an answer, and returns whether it is the last one.
    async fn hears(&mut self, world: &World, answer: pb::ReportTokenErrorResponse) -> bool {
        let case = format!("{:?} reported, {:?}, after {:?}", self.reported, self.trouble, self.waits);
        let token = answer.token.as_ref().unwrap();
        if answer.advice() != Advice::RetryAfter {
            if answer.advice() == Advice::Pause {
                let open = !token.usable || !token.missing_required_scopes.is_empty();
                assert!(open, "{case}: a pause without an end");
                assert_eq!(kinds(world, &self.id).await.last(), Some(&Kind::Invalidated), "{case}");
            }
            return true;
        }
        let wait = told(&answer);
        assert!(wait > 0, "{case}");
        self.waits.push(wait);
        self.next = world.sandbox.clock().now() + wait;
        wait >= AN_HOUR
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn who_does_as_it_is_told_is_not_told_the_same_for_ever(world: World) {
        stand_still(&world).await;
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let mut all = Vec::new();
        for trouble in TROUBLES {
            for reported in REPORTED {
                let secret = world.person(&format!("person {}", all.len())).long_lived_token();
                let id = connector.connect(ACME, &secret).await;
                match trouble {
                    Trouble::Nothing => {}
                    Trouble::Data(error) => refuse_data(&world, &secret, error),
                    Trouble::Inspector(error) => {
                        let fault = Fault::on(Endpoint::DebugToken).token(&secret).always();
                        world.sandbox.fault(fault.with(error.fault()));
                    }
                }
                all.push(Obedient { id, trouble, reported, waits: Vec::new(), next: 0 });
            }
        }
        let mut rounds = 0;
        while let Some(next) = all.iter().map(|one| one.next).min() {
            let now = world.sandbox.clock().now();
            if next > now {
                world.advance(Duration::from_secs((next - now).unsigned_abs())).await;
            }
            let now = world.sandbox.clock().now();
            let mut left = Vec::new();
            for mut one in all {
                assert!(one.waits.len() < STEPS, "{:?}, {:?}: {:?}", one.reported, one.trouble, one.waits);
                let done = one.next <= now && {
                    let answer = report(&ingestion, &one.id, one.reported).await;
                    one.hears(&world, answer).await
                };
                if !done {
                    left.push(one);
                }
            }
            all = left;
            rounds += 1;
        }
        assert!(rounds > 5, "delays grew step by step");
    }

    async fn a_provider_that_is_away_lengthens_the_delay_too(world: World) {
        stand_still(&world).await;
        let id = world.connector().await.connect(ACME, &world.person("ana").long_lived_token()).await;
        world.sandbox.fault(Fault::on(Endpoint::DebugToken).always().with(FaultKind::error(503, 2)));
        let ingestion = world.ingestion().await;
        let mut waits = Vec::new();
        while waits.last().is_none_or(|wait| *wait < AN_HOUR) {
            let answer = report(&ingestion, &id, error(190, Some(460), "x")).await;
            assert_eq!(said(&answer), (Verdict::Unconfirmed, Advice::RetryAfter, true));
            let wait = told(&answer);
            waits.push(wait);
            assert!(waits.len() < STEPS, "{waits:?}");
            world.advance(Duration::from_secs(wait.unsigned_abs())).await;
        }
    }
}
