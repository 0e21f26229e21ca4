//! Reports to the service manager when a command is ready and when it stops.
//!
//! Only for services of `Type=notify`, for which systemd sets `NOTIFY_SOCKET`. A report is one datagram, so it never
//! waits. The manager accepts it only from the service's main process, which the plugin of a docker CLI is not.

use sd_notify::NotifyState;

/// Everything before the first line of output is done, so units that are ordered after this one may start.
pub(super) fn report_ready() {
    report(NotifyState::Ready);
}

/// The command is writing what is left, and will then end.
pub(super) fn report_stopping() {
    report(NotifyState::Stopping);
}

/// Does nothing without `NOTIFY_SOCKET`.
fn report(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&state)) {
        tracing::warn!(%error, "cannot report {state} to the service manager");
    }
}
