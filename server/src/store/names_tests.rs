//! Every name that the tables hold, written out by hand: renaming a variant must not rename what is stored.

use super::{Backend, KeyPurpose, RunCause, RunState, StandingName, VaultKeyPurpose};

#[test]
fn stored_names_never_change() {
    let names = [
        (RunState::Running.as_str(), "RUNNING"),
        (RunState::Succeeded.as_str(), "SUCCEEDED"),
        (RunState::Incomplete.as_str(), "INCOMPLETE"),
        (RunState::Failed.as_str(), "FAILED"),
        (RunState::Abandoned.as_str(), "ABANDONED"),
        (RunCause::Slot.as_str(), "SLOT"),
        (RunCause::CatchUp.as_str(), "CATCH_UP"),
        (RunCause::Request.as_str(), "REQUEST"),
        (VaultKeyPurpose::Authorization.as_str(), "authorization"),
        (VaultKeyPurpose::Audit.as_str(), "audit"),
        (VaultKeyPurpose::Index.as_str(), "index"),
        (KeyPurpose::Data.as_str(), "data"),
        (KeyPurpose::Index.as_str(), "index"),
        (StandingName::Live.as_str(), "LIVE"),
        (StandingName::Invalid.as_str(), "INVALID"),
        (StandingName::Revoked.as_str(), "REVOKED"),
        (Backend::Sqlite.as_str(), "sqlite"),
        (Backend::Postgres.as_str(), "postgres"),
    ];
    for (name, stored) in names {
        assert_eq!(name, stored);
    }
    assert_eq!("CATCH_UP".parse(), Ok(RunCause::CatchUp));
    assert_eq!("ABANDONED".parse(), Ok(RunState::Abandoned));
    assert_eq!("authorization".parse(), Ok(VaultKeyPurpose::Authorization));
}
