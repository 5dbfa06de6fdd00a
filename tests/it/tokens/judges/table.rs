//! Every word of the inspector, with every reply to a data call, and every kind of report: twice, at least ten seconds
//! apart.

use pb::RefusalReason as R;
use token_vault_proto::v1::token::Status;
use token_vault_proto::v1::token::badge::Color;

use super::*;

/// How many tokens die together: more of them at once would be held back as an outage of the app.
const AT_ONCE: usize = 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inspector {
    Valid,
    Dead(Option<u32>),
    Refuses(GraphError),
}

/// What the provider replies to a data call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Works,
    /// For the token's or the person's sake.
    Refused(GraphError, R),
    /// For any other reason.
    Silent(GraphError),
}

const fn session(subcode: u32, reason: R) -> Data {
    Data::Refused(error(190, Some(subcode), "x"), reason)
}

const DATA: &[Data] = &[
    Data::Works,
    session(452, R::Unknown),
    session(456, R::Malformed),
    session(457, R::Malformed),
    session(458, R::AppRemoved),
    session(459, R::Checkpoint),
    session(460, R::PasswordChanged),
    session(461, R::Unknown),
    session(462, R::Unknown),
    session(463, R::Expired),
    session(464, R::UnconfirmedAccount),
    session(465, R::Unknown),
    session(466, R::RevokedAtProvider),
    session(467, R::LoggedOut),
    session(468, R::UnusedTooLong),
    session(490, R::Checkpoint),
    session(492, R::RoleLost),
    session(493, R::DataAccessLapsed),
    session(987_654, R::Unknown),
    Data::Refused(error(190, None, "x"), R::Unknown),
    Data::Refused(error(102, None, "x"), R::Unknown),
    Data::Refused(error(10, None, "(#10) No permission for this action"), R::PermissionRefused),
    Data::Refused(error(200, Some(1_870_047), "Permissions error"), R::PermissionRefused),
    Data::Refused(
        error(200, None, "(#200) Ad account owner has NOT grant ads_management or ads_read permission"),
        R::PermissionRefused,
    ),
    Data::Refused(error(294, None, "x"), R::PermissionRefused),
    Data::Silent(error(4, None, "limit")),
    Data::Silent(error(17, Some(2_446_079), "limit")),
    Data::Silent(error(613, None, "limit")),
    Data::Silent(error(80_004, Some(2_446_079), "limit")),
    Data::Silent(error(2, None, "Service temporarily unavailable")),
    Data::Silent(error(100, None, "Invalid parameter")),
    Data::Silent(error(100, Some(33), "Unsupported get request")),
    Data::Silent(error(100, None, "Invalid appsecret_proof provided in the API argument")),
    Data::Silent(error(101, None, "app id")),
    Data::Silent(error(3, None, "capability")),
    Data::Silent(error(270, None, "access level")),
    Data::Silent(error(368, Some(1_390_008), "abuse")),
    Data::Silent(error(987_654, None, "unheard of")),
];

const INSPECTORS: &[Inspector] = &[
    Inspector::Dead(None),
    Inspector::Dead(Some(458)),
    Inspector::Dead(Some(460)),
    Inspector::Dead(Some(463)),
    Inspector::Refuses(error(4, None, "limit")),
    Inspector::Refuses(error(100, None, "Unsupported request")),
    Inspector::Refuses(error(2, None, "Service temporarily unavailable")),
];

/// What callers report, the verdict while the vault finds nothing wrong, and whether such a report makes it look.
const REPORTS: &[(GraphError, Verdict, bool)] = &[
    (error(190, Some(460), "x"), Verdict::StillValid, true),
    (error(200, None, "(#200) Requires ads_read permission"), Verdict::Permission, true),
    (
        error(100, None, "Invalid appsecret_proof provided in the API argument"),
        Verdict::OurMisconfiguration,
        true,
    ),
    (error(2, None, "Service temporarily unavailable"), Verdict::Transient, false),
    (error(4, None, "limit"), Verdict::Throttled, false),
];

struct Case {
    inspector: Inspector,
    data: Data,
    reported: GraphError,
    unfounded: Verdict,
    looks: bool,
    id: String,
}

impl Case {
    async fn new(world: &World, connector: &Caller, number: usize, of: (Inspector, Data, usize)) -> Self {
        let (inspector, data, report) = of;
        let secret = world.person(&format!("person {number}")).long_lived_token();
        let id = connector.connect(ACME, &secret).await;
        match inspector {
            Inspector::Valid => {}
            Inspector::Dead(subcode) => world.sandbox.kill(&secret, subcode),
            Inspector::Refuses(error) => {
                let fault = Fault::on(Endpoint::DebugToken).token(&secret).always();
                world.sandbox.fault(fault.with(error.fault()));
            }
        }
        if let Data::Refused(error, _) | Data::Silent(error) = data {
            refuse_data(world, &secret, error);
        }
        let (reported, unfounded, looks) = REPORTS[report];
        Self { inspector, data, reported, unfounded, looks, id }
    }

    /// Why the token is dead after the second report, if it is.
    fn dies(&self) -> Option<R> {
        match (self.looks, self.inspector, self.data) {
            (false, ..) | (_, Inspector::Refuses(_), _) => None,
            (_, Inspector::Dead(None), _) => {
                // The inspector gives no reason. A reported one is better than none.
                Some(if self.reported.code == 190 { R::PasswordChanged } else { R::Malformed })
            }
            (_, Inspector::Dead(Some(458)), _) => Some(R::AppRemoved),
            (_, Inspector::Dead(Some(460)), _) => Some(R::PasswordChanged),
            (_, Inspector::Dead(Some(_)), _) => Some(R::Expired),
            (_, Inspector::Valid, Data::Refused(_, reason)) => Some(reason),
            (_, Inspector::Valid, _) => None,
        }
    }

    fn check(&self, second: bool, answer: &pb::ReportTokenErrorResponse) {
        let case =
            format!("{:?}, {:?}, reported {:?}, second {second}", self.inspector, self.data, self.reported);
        let (retry, pause) = (Advice::RetryAfter, Advice::Pause);
        let token = answer.token.as_ref().unwrap();
        let at_inspector = matches!(self.inspector, Inspector::Dead(_));
        let dead = self.dies().filter(|_| second || at_inspector);
        let judged = (answer.verdict(), answer.advice());
        match (dead, self.dies()) {
            (Some(reason), _) => {
                let verdicts: &[Verdict] = match (second, at_inspector) {
                    (false, _) => &[Verdict::Invalidated],
                    (true, true) => &[Verdict::AlreadyDead],
                    (true, false) => &[Verdict::Invalidated, Verdict::AlreadyDead],
                };
                assert!(verdicts.contains(&judged.0) && judged.1 == pause, "{case}: {judged:?}");
                assert_eq!((token.status(), token.usable), (Status::Invalid, false), "{case}");
                assert_eq!(token.invalid_reason(), reason, "{case}");
                assert_eq!(token.badge.as_ref().unwrap().color(), Color::Red, "{case}");
                assert!(!said(answer).2, "{case}");
                return;
            }
            (None, Some(_)) => assert_eq!(judged, (Verdict::Unconfirmed, retry), "{case}"),
            (None, None) => {
                let unasked = matches!(self.inspector, Inspector::Refuses(_));
                let verdict = match self.unfounded {
                    Verdict::StillValid if unasked => Verdict::Unconfirmed,
                    verdict => verdict,
                };
                assert_eq!(judged, (verdict, retry), "{case}");
            }
        }
        assert!(said(answer).2, "{case}: it tells when to retry");
        assert_eq!((token.status(), token.usable), (Status::Active, true), "{case}");
    }
}

on_both_databases! {
    with |builder| builder.moving_time();

    async fn what_two_judges_say_decides_and_a_report_does_not(world: World) {
        stand_still(&world).await;
        let (connector, ingestion) = (world.connector().await, world.ingestion().await);
        let all = DATA.iter().map(|data| (Inspector::Valid, *data));
        let all = all.chain(INSPECTORS.iter().map(|inspector| (*inspector, Data::Works)));
        let all: Vec<_> =
            (0..REPORTS.len()).flat_map(|n| all.clone().map(move |(i, d)| (i, d, n))).collect();
        for (group, of) in all.chunks(AT_ONCE).enumerate() {
            let mut cases = Vec::new();
            for (n, of) in of.iter().enumerate() {
                cases.push(Case::new(&world, &connector, group * AT_ONCE + n, *of).await);
            }
            for second in [false, true] {
                for case in &cases {
                    let answer = report(&ingestion, &case.id, case.reported).await;
                    case.check(second, &answer);
                }
                world.advance(APART).await;
            }
            for case in &cases {
                let dies = case.dies().is_some();
                let events: &[Kind] =
                    if dies { &[Kind::Connected, Kind::Invalidated] } else { &[Kind::Connected] };
                assert_eq!(kinds(&world, &case.id).await, events, "{:?}, {:?}", case.inspector, case.data);
                assert_eq!(ingestion.fetch(&case.id).await.is_err(), dies);
            }
            world.sandbox.clear_faults();
            // The deaths of this group no longer count as many at once.
            world.advance(Duration::from_secs(601)).await;
        }
    }
}
