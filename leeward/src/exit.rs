//! Exit codes: documented, so that scripts may rely on them.

use wire::ApiError;
use wire::client::ConnectError;

/// Something went wrong that has no code of its own; of `leeward diff`: there are differences.
pub const FAILED: u8 = 1;
// 2 is the argument parser's: the command line itself is wrong.
/// The input was understood and refused: a manifest, a repository, an image, a configuration.
pub const REFUSED: u8 = 3;
/// A hub, registry or Git server cannot be reached.
pub const UNREACHABLE: u8 = 4;
/// What was asked for is not there.
pub const NOT_FOUND: u8 = 5;
/// The credentials are missing, wrong or expired.
pub const NOT_ALLOWED: u8 = 6;

/// Printed by `leeward help`.
pub const HELP: &str = "Exit codes:
  0  done
  1  failed; of diff: there are differences
  2  the command line is wrong
  3  the input was understood and refused
  4  a hub, registry or Git server cannot be reached
  5  what was asked for is not there
  6  credentials are missing, wrong or expired";

/// What was compared is not the same.
#[derive(Debug, thiserror::Error)]
#[error("there are differences")]
pub struct Differs;

/// The input was understood and refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What was asked for is not there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// Credentials are missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotAllowed(pub String);

/// The code of an error, by the condition in its chain.
pub fn code_of(err: &anyhow::Error) -> u8 {
    for cause in err.chain() {
        #[cfg(feature = "hub")]
        if cause.is::<hub::FileConfigError>() {
            return REFUSED;
        }
        if cause.is::<Refused>()
            || cause.is::<agent::ConfigError>()
            || cause.is::<render::RenderError>()
            || cause.is::<plan::Refusal>()
        {
            return REFUSED;
        }
        if cause.is::<NotFound>() || is_no_device(cause) {
            return NOT_FOUND;
        }
        if cause.is::<NotAllowed>() {
            return NOT_ALLOWED;
        }
        if let Some(api) = cause.downcast_ref::<ApiError>() {
            return of_api(api);
        }
    }
    FAILED
}

#[cfg(feature = "sim")]
fn is_no_device(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<sim::NoDevice>()
}

#[cfg(not(feature = "sim"))]
fn is_no_device(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}

fn of_api(err: &ApiError) -> u8 {
    match err {
        ApiError::Connect(ConnectError::Refused { status, .. }) => match status {
            401 | 403 => NOT_ALLOWED,
            404 => NOT_FOUND,
            400 | 409 | 422 => REFUSED,
            _ => FAILED,
        },
        ApiError::Connect(_) | ApiError::BrokeOff(_) => UNREACHABLE,
    }
}
