//! A blob on its way in: a sparse file plus the record of which pieces are already verified, so that
//! a transfer resumes after a crash. Knows nothing of peers.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes of one piece: what one request asks of one peer. A multiple of the 16 KiB group that
/// iroh-blobs verifies at.
pub(super) const PIECE_BYTES: u64 = 2 * 1024 * 1024;

/// Runs of zeros of this many bytes stay holes.
const HOLE_BYTES: usize = 4096;

/// A partly received blob. Pieces are written only after they were verified against the digest.
#[derive(Debug)]
pub(super) struct PartFile {
    data: File,
    have: File,
    path: PathBuf,
    have_path: PathBuf,
    size: u64,
}

impl PartFile {
    /// Opens or creates `<path>` and its record `<path>.have` for a blob of `size` bytes, and says
    /// which pieces are there already. A record that does not fit the size starts over.
    pub(super) fn open(path: PathBuf, size: u64) -> io::Result<(PartFile, Vec<bool>)> {
        let have_path = path.with_extension("have");
        let pieces = piece_count(size) as usize;
        let open = |path: &Path| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
        };
        let data = open(&path)?;
        let have = open(&have_path)?;
        let mut record = vec![0u8; pieces];
        if data.metadata()?.len() == size && have.metadata()?.len() == pieces as u64 {
            have.read_exact_at(&mut record, 0)?;
        } else {
            have.set_len(0)?;
            data.set_len(0)?;
            data.set_len(size)?;
            have.set_len(pieces as u64)?;
        }
        let present = record.iter().map(|&byte| byte == 1).collect();
        Ok((
            PartFile {
                data,
                have,
                path,
                have_path,
                size,
            },
            present,
        ))
    }

    /// Writes one verified piece and records it. Blocking.
    pub(super) fn write_piece(&self, piece: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(piece < piece_count(self.size));
        assert_eq!(
            bytes.len() as u64,
            piece_range(piece, self.size).1 - piece_range(piece, self.size).0
        );
        write_sparse_at(&self.data, bytes, piece * PIECE_BYTES)?;
        self.write_early(piece);
        self.have.write_all_at(&[1], piece)
    }

    /// Lets the kernel begin with writing a piece to the disk, so that the disk works while the network does and little is left to
    /// sync at the end. Linux writes what is dirty of a part named so, and drops what is clean, of which a new piece has nothing.
    fn write_early(&self, piece: u64) {
        let (start, end) = piece_range(piece, self.size);
        let (Ok(offset), Ok(bytes)) = (start.try_into(), (end - start).try_into()) else {
            return;
        };
        // A file system that cannot do that does as it always does.
        let _ = posix_fadvise(
            &self.data,
            offset,
            bytes,
            PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        );
    }

    /// Makes the data durable and moves it to `target` as a read-only file. Blocking.
    pub(super) fn finish(&self, target: &Path) -> io::Result<()> {
        self.data.sync_all()?;
        make_read_only(&self.data)?;
        std::fs::rename(&self.path, target)?;
        std::fs::remove_file(&self.have_path)?;
        sync_parent(target)
    }
}

/// Removes a partly received blob and its record. Blocking.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    for path in [path.to_owned(), path.with_extension("have")] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// How many pieces a blob of `size` bytes has.
pub(super) fn piece_count(size: u64) -> u64 {
    size.div_ceil(PIECE_BYTES)
}

/// The byte range `[start, end)` of a piece.
pub(super) fn piece_range(piece: u64, size: u64) -> (u64, u64) {
    let start = piece * PIECE_BYTES;
    (start, size.min(start + PIECE_BYTES))
}

/// Writes `bytes` at `offset`, leaving whole blocks of zeros out: the file was made with `set_len`
/// and the same content is never written differently, so what is left out reads as zeros.
pub(super) fn write_sparse_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    let is_hole = |block: &[u8]| block.iter().all(|&byte| byte == 0);
    while written < bytes.len() {
        let rest = &bytes[written..];
        let hole = rest
            .chunks(HOLE_BYTES)
            .take_while(|block| is_hole(block))
            .map(<[u8]>::len)
            .sum::<usize>();
        let data = rest[hole..]
            .chunks(HOLE_BYTES)
            .take_while(|block| !is_hole(block))
            .map(<[u8]>::len)
            .sum::<usize>();
        file.write_all_at(&rest[hole..hole + data], offset + (written + hole) as u64)?;
        written += hole + data;
    }
    Ok(())
}

/// Takes every write permission from an open file.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o444))
}

/// Makes a rename into the directory of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
