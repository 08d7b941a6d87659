//! The keys that this node may sign events with, in whichever epoch one of them has a seat: all files
//! `keys/consensus*.json`. A file that comes while the node runs counts from the next epoch on; one that goes, from the
//! next start on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use shadowgraph::{Committee, MemberIndex, PublicKey, SigningKey};

use crate::{
    error::NodeError,
    keys::{Key as KeyFile, KeyKind},
};

/// Keys read so far.
pub(crate) struct ConsensusKeys {
    dir: PathBuf,
    keys: Mutex<Vec<SigningKey>>,
}

impl ConsensusKeys {
    /// Those in the directory now.
    ///
    /// # Errors
    /// A file that is no consensus key.
    pub fn load(dir: &Path) -> Result<Self, NodeError> {
        let keys = Self {
            dir: dir.to_owned(),
            keys: Mutex::default(),
        };
        keys.look()?;
        Ok(keys)
    }

    /// Reads files that have come since; returns their keys.
    ///
    /// # Errors
    /// A file that is no consensus key.
    pub fn look(&self) -> Result<Vec<SigningKey>, NodeError> {
        let mut new = Vec::new();
        for path in files(&self.dir) {
            let file = KeyFile::load(&path, KeyKind::Consensus)?;
            let key = SigningKey::from_bytes(file.signing.to_bytes());
            let mut keys = self.keys.lock().expect("no holder panics");
            if keys.iter().all(|held| held.public() != key.public()) {
                keys.push(key.clone());
                new.push(key);
            }
        }
        Ok(new)
    }

    /// All of them, in the order of their files' names, those that came later after them.
    pub fn all(&self) -> Vec<SigningKey> {
        self.keys.lock().expect("no holder panics").clone()
    }

    /// Whether this is one of them.
    pub fn holds(&self, key: &PublicKey) -> bool {
        self.all().iter().any(|held| held.public() == *key)
    }

    /// The seat of one of them.
    pub fn seat(&self, committee: &Committee) -> Option<MemberIndex> {
        self.all()
            .iter()
            .find_map(|key| committee.seat(&key.public()))
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let is_key = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("consensus") && name.ends_with(".json"))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(is_key);
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(dir: &Path, name: &str) -> PublicKey {
        let key = KeyFile::generate(KeyKind::Consensus);
        key.save_new(&dir.join(name)).unwrap();
        PublicKey(key.public())
    }

    #[test]
    fn keys_that_come_later_are_taken_in_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = save(dir.path(), "consensus.json");
        let other = KeyFile::generate(KeyKind::Node);
        other.save_new(&dir.path().join("node.json")).unwrap();
        let keys = ConsensusKeys::load(dir.path()).unwrap();
        let held = |keys: &ConsensusKeys| -> Vec<_> {
            keys.all().iter().map(SigningKey::public).collect()
        };
        assert_eq!(held(&keys), [first]);
        assert!(keys.look().unwrap().is_empty());
        let second = save(dir.path(), "consensus-2.json");
        assert!(!keys.holds(&second));
        assert_eq!(keys.look().unwrap().len(), 1);
        assert!(keys.holds(&second) && keys.holds(&first));
        assert_eq!(held(&keys), [first, second]);
    }

    #[test]
    fn another_kind_of_key_under_that_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyFile::generate(KeyKind::Operator);
        key.save_new(&dir.path().join("consensus-old.json"))
            .unwrap();
        assert!(ConsensusKeys::load(dir.path()).is_err());
        assert!(ConsensusKeys::load(&dir.path().join("none")).is_ok());
    }
}
