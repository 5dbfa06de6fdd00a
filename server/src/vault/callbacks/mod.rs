//! ReportProviderCallback: what a provider sends to our app by itself, passed on by whoever received it. The provider's
//! module verifies and reads it; [`report`] acts on it, and [`deletion`] takes in a request to delete a person's data,
//! which a job carries out.

mod deletion;
pub(in crate::vault) mod report;
