//! Certificates and keys for the default context.
//!
//! In: docker's TLS options and variables. Out: [`Tls`]. Called by [`super::Endpoint::resolve`]; stored contexts bring
//! their own certificates ([`super::context`]).

use std::fmt;
use std::path::PathBuf;

use super::files::{read_optional_pem, read_pem};
use super::options::{Environment, Flags, default_config_dir};
use crate::docker::Error;

/// TLS settings, with the content of the certificate files.
#[derive(Clone, Default, PartialEq)]
pub(in crate::docker) struct Tls {
    /// PEM. If given, these are the only authorities trusted; otherwise the system's are.
    pub(in crate::docker) ca: Option<Vec<u8>>,
    /// PEM, including any intermediate certificates.
    pub(in crate::docker) cert: Option<Vec<u8>>,
    /// The private key, in PEM.
    pub(in crate::docker) key: Option<Vec<u8>>,
    /// Accept any certificate from any host.
    pub(in crate::docker) skip_verify: bool,
}

/// Keeps keys out of logs.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("skip_verify", &self.skip_verify).finish_non_exhaustive()
    }
}

impl Tls {
    /// The settings of the default context; `None` without TLS.
    ///
    /// As in docker's CLI, the CA must exist even if nothing is verified and even for a unix socket. Certificate and
    /// key must exist only if they were named.
    pub(super) fn of_default_context(flags: &Flags, environment: &Environment) -> Result<Option<Tls>, Error> {
        let verify = flags.tlsverify.unwrap_or_else(|| environment.var("DOCKER_TLS_VERIFY").is_some());
        let tls = flags.tls.unwrap_or_else(|| environment.var("DOCKER_TLS").is_some());
        if !(verify || tls || flags.tlsverify.is_some()) {
            return Ok(None);
        }
        // Not `config_dir`: docker's CLI determines this default before it parses `--config`.
        let folder = environment.var("DOCKER_CERT_PATH").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| default_config_dir(environment));
        let (ca, cert, key) = (folder.join("ca.pem"), folder.join("cert.pem"), folder.join("key.pem"));
        Ok(Some(Tls {
            ca: Some(read_pem(flags.tlscacert.as_ref().unwrap_or(&ca))?),
            cert: flags.tlscert.as_deref().map_or_else(|| read_optional_pem(&cert), |path| read_pem(path).map(Some))?,
            key: flags.tlskey.as_deref().map_or_else(|| read_optional_pem(&key), |path| read_pem(path).map(Some))?,
            skip_verify: !verify,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_printed() {
        let tls = Tls { key: Some(b"secret".to_vec()), ..Tls::default() };
        assert_eq!(format!("{tls:?}"), "Tls { skip_verify: false, .. }");
    }
}
