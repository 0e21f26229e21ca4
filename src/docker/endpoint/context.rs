//! Docker's context store.
//!
//! A context is stored in `contexts/meta/<sha256 of its name>/meta.json`, its TLS files in
//! `contexts/tls/<same>/docker/` (docker/cli `cli/context/store`). Unlike `config.json`, a `meta.json` must be valid as
//! a whole (`cli/context/store/metadatastore.go`: getByID).

use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::address::{self, Address};
use super::options::{Environment, Flags, config_dir};
use super::tls::Tls;
use super::{files, go_json};
use crate::docker::{Cause, Error};

/// The context that is not stored: its endpoint is determined by options and variables.
pub(super) const DEFAULT: &str = "default";

/// The names that `--context` accepts with their descriptions, sorted, including `default`. Skips contexts
/// that cannot be read.
pub fn contexts(flags: &Flags, environment: &Environment) -> Vec<(String, String)> {
    let meta = config_dir(flags, environment).join("contexts/meta");
    let folders = std::fs::read_dir(meta).into_iter().flatten().flatten();
    let stored = folders.filter_map(|folder| {
        let json = files::read(&folder.path().join("meta.json")).ok()?;
        let meta = Meta::decode(&json).ok()?;
        (!meta.name.is_empty()).then_some((meta.name, meta.description))
    });
    let mut contexts: Vec<_> = stored.chain([(DEFAULT.to_owned(), String::new())]).collect();
    contexts.sort();
    contexts
}

/// Loads a stored context. `directory` is the one of `config.json`.
pub(super) fn load(directory: &Path, name: &str) -> Result<(Address, Option<Tls>), Error> {
    let id: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    let unusable = |source| Error::BadContext { name: name.to_owned(), source };
    let json = match files::read(&directory.join("contexts/meta").join(&id).join("meta.json")) {
        Err(e) if files::is_not_found(&e) => return Err(Error::UnknownContext { name: name.to_owned() }),
        json => json.map_err(|e| unusable(e.into()))?,
    };
    let docker = Meta::decode(&json).map_err(unusable)?.docker;
    let docker = docker.ok_or_else(|| unusable("the context has no Docker endpoint".into()))?;
    let address = address::parse(&docker.host)?;
    let folder = directory.join("contexts/tls").join(&id).join("docker");
    let tls = Tls {
        ca: files::read_optional_pem(&folder.join("ca.pem"))?,
        cert: files::read_optional_pem(&folder.join("cert.pem"))?,
        key: files::read_optional_pem(&folder.join("key.pem"))?,
        skip_verify: docker.skip_tls_verify,
    };
    let is_configured = tls != Tls::default();
    Ok((address, is_configured.then_some(tls)))
}

/// The members of a `meta.json` that are used.
#[derive(Debug, Default)]
struct Meta {
    name: String,
    description: String,
    /// `None` for a context that is not for Docker.
    docker: Option<DockerMeta>,
}

#[derive(Debug, Default)]
struct DockerMeta {
    host: String,
    skip_tls_verify: bool,
}

impl Meta {
    fn decode(json: &[u8]) -> Result<Meta, Cause> {
        let mut meta = Meta::default();
        let value = go_json::only(json)?;
        if value.is_null() {
            return Ok(meta);
        }
        let mut endpoints = BTreeMap::new();
        let mut metadata = None;
        for (key, value) in value.members().ok_or("not a JSON object")? {
            if go_json::is_field(&key, "Name") {
                if !go_json::set_string(&mut meta.name, value) {
                    return Err("Name is not a string".into());
                }
            } else if go_json::is_field(&key, "Metadata") {
                metadata = Some(value);
            } else if go_json::is_field(&key, "Endpoints") {
                match value.members() {
                    Some(members) => endpoints.extend(members),
                    None if value.is_null() => endpoints.clear(),
                    None => return Err("Endpoints is not an object".into()),
                }
            }
        }
        if let Some(metadata) = metadata.filter(|metadata| !metadata.is_null()) {
            for (key, value) in metadata.members().ok_or("Metadata is not an object")? {
                if key == "Description" {
                    meta.description = value.text().ok_or("Description is not a string")?;
                }
            }
        }
        for (name, endpoint) in endpoints {
            if endpoint.is_null() {
                continue;
            }
            let members = endpoint.members().ok_or_else(|| format!("endpoint {name:?} is not an object"))?;
            if name == "docker" {
                meta.docker = Some(DockerMeta::from_members(members)?);
            }
        }
        Ok(meta)
    }
}

impl DockerMeta {
    fn from_members<'a>(members: impl Iterator<Item = (String, go_json::JsonValue<'a>)>) -> Result<DockerMeta, Cause> {
        let mut docker = DockerMeta::default();
        for (key, value) in members {
            if go_json::is_field(&key, "Host") {
                if !go_json::set_string(&mut docker.host, value) {
                    return Err("Host is not a string".into());
                }
            } else if go_json::is_field(&key, "SkipTLSVerify") && !value.is_null() {
                docker.skip_tls_verify = value.boolean().ok_or("SkipTLSVerify is neither true nor false")?;
            }
        }
        Ok(docker)
    }
}
