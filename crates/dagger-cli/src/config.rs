//! Where the client's settings come from: options, environment, then `client.toml`.

use crate::args::Global;
use crate::failure::{Done, Exit, Failure};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `client.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// APIs of nodes, the preferred first.
    #[serde(default)]
    pub api: Vec<String>,
    /// Chain id of the network, hex. A node of another network is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    /// File of the account's key; relative to the directory of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Private SSH key that `dagger vm ssh` logs in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_identity: Option<PathBuf>,
}

/// Name of the file inside the configuration directory.
pub const FILE_NAME: &str = "client.toml";

/// The configuration directory that these options mean.
pub fn directory(global: &Global) -> Done<PathBuf> {
    if let Some(directory) = &global.config_dir {
        return Ok(directory.clone());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    base.map(PathBuf::from)
        .or_else(home)
        .map(|base| base.join("dagger"))
        .ok_or_else(|| {
            Failure::usage("no home directory to look for client.toml in")
                .hint("name a directory with --config-dir or DAGGER_CONFIG_DIR")
        })
}

impl ClientConfig {
    /// Reads `client.toml` of `directory`, with its paths made usable from here.
    pub fn load(directory: &Path) -> Done<Self> {
        let mut config = Self::read(directory)?;
        for file in [&mut config.key, &mut config.ssh_identity]
            .into_iter()
            .flatten()
        {
            *file = directory.join(&*file);
        }
        Ok(config)
    }

    /// Reads `client.toml` of `directory` as it stands; without one, everything is unset.
    pub fn read(directory: &Path) -> Done<Self> {
        let path = directory.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Failure::file(path.display(), &error)),
        };
        toml::from_str(&text).map_err(|error| {
            Failure::new(
                Exit::Usage,
                "E_CONFIG_INVALID",
                format!("{}: {}", path.display(), error.message()),
            )
            .hint("correct that file, or remove it to start anew")
        })
    }

    /// Writes `client.toml` of `directory`, whole or not at all.
    pub fn save(&self, directory: &Path) -> Done {
        use std::io::Write as _;
        let path = directory.join(FILE_NAME);
        let failed = |error: &dyn std::fmt::Display| Failure::file(path.display(), error);
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
        let text = toml::to_string(self).map_err(|error| failed(&error))?;
        let mut file =
            tempfile::NamedTempFile::new_in(directory).map_err(|error| failed(&error))?;
        file.write_all(text.as_bytes())
            .map_err(|error| failed(&error))?;
        file.persist(&path).map_err(|error| failed(&error.error))?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
