//! What the agent keeps about each instance: one file per instance, mode 0600, for it holds the
//! guest's ssh host key. Written whole or not at all.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use dagger_vmm::InstanceId;
use serde::{Deserialize, Serialize};

use super::plan::Memory;

/// Everything kept about one instance.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What the planner reads.
    pub(super) memory: Memory,
    /// The guest's private ssh host key, OpenSSH form. Leaves this host only into the guest's seed.
    pub(super) host_key_pem: String,
    /// Where the image came from.
    pub(super) image_source: String,
}

/// The records of a host, in memory and on disk.
pub(super) struct Records {
    dir: PathBuf,
    records: Mutex<BTreeMap<InstanceId, Record>>,
}

impl Records {
    /// Opens (and makes, mode 0700) the directory. A file that cannot be read is as good as lost: what
    /// hangs on it is placed anew.
    pub(super) fn open(dir: PathBuf) -> io::Result<Records> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| stem.parse().ok());
            match (
                stem,
                path.extension().and_then(|extension| extension.to_str()),
            ) {
                (Some(id), Some("json")) => match serde_json::from_slice(&fs::read(&path)?) {
                    Ok(record) => drop(records.insert(id, record)),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "a record of an instance is damaged")
                    }
                },
                (_, Some("new")) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(Records {
            dir,
            records: Mutex::new(records),
        })
    }

    pub(super) fn get(&self, id: InstanceId) -> Option<Record> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn memory(&self) -> BTreeMap<InstanceId, Memory> {
        self.lock()
            .iter()
            .map(|(id, record)| (*id, record.memory.clone()))
            .collect()
    }

    /// Changes a record (a new one if there is none) and returns it once it is on disk.
    pub(super) fn update(
        &self,
        id: InstanceId,
        change: impl FnOnce(&mut Record),
    ) -> io::Result<Record> {
        let mut records = self.lock();
        let mut record = records.get(&id).cloned().unwrap_or_default();
        change(&mut record);
        if records.get(&id) != Some(&record) {
            write(&self.path(id), &record)?;
            records.insert(id, record.clone());
        }
        Ok(record)
    }

    /// Forgets every instance for which `keep` says no.
    pub(super) fn retain(&self, keep: impl Fn(InstanceId) -> bool) {
        self.lock().retain(|id, _| {
            let stays = keep(*id);
            if !stays && let Err(error) = fs::remove_file(self.path(*id)) {
                tracing::warn!(instance = %id, %error, "the record of an instance cannot be removed");
            }
            stays
        });
    }

    fn path(&self, id: InstanceId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Record>> {
        self.records.lock().expect("no panic holds the records")
    }
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    io::Write::write_all(
        &mut file,
        &serde_json::to_vec(record).expect("a record is plain data"),
    )?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent()
        .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}
