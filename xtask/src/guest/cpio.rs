//! Writes a cpio archive of the kind a Linux kernel unpacks as its first root (newc), the same bytes for the same tree.

use std::collections::BTreeMap;

/// What stands at a path.
enum Node {
    Directory,
    File(Vec<u8>),
    Link(String),
    /// Character device: major, minor.
    Device(u32, u32),
}

/// A file tree in memory. All belongs to root, all times are zero, paths are written in order.
#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<String, (u32, Node)>,
}

impl Tree {
    /// Adds a directory and those above it.
    pub fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.nodes
            .insert(path.into(), (0o040_000 | mode, Node::Directory));
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.parents(path);
        self.nodes
            .insert(path.into(), (0o100_000 | mode, Node::File(bytes.into())));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.nodes
            .insert(path.into(), (0o120_777, Node::Link(target.into())));
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.parents(path);
        self.nodes
            .insert(path.into(), (0o020_000 | mode, Node::Device(major, minor)));
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.nodes
                .entry(path[..at].into())
                .or_insert((0o040_755, Node::Directory));
        }
    }

    /// The archive.
    pub fn to_newc(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, (path, (mode, node))) in self.nodes.iter().enumerate() {
            let (data, device): (&[u8], _) = match node {
                Node::Directory => (&[], (0, 0)),
                Node::File(bytes) => (bytes, (0, 0)),
                Node::Link(target) => (target.as_bytes(), (0, 0)),
                Node::Device(major, minor) => (&[], (*major, *minor)),
            };
            entry(&mut out, index as u32 + 1, path, *mode, data, device);
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[], (0, 0));
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn entry(
    out: &mut Vec<u8>,
    inode: u32,
    path: &str,
    mode: u32,
    data: &[u8],
    (major, minor): (u32, u32),
) {
    let links = 1;
    let size = u32::try_from(data.len()).expect("files of a guest are small");
    out.extend_from_slice(b"070701");
    for field in [
        inode,
        mode,
        0,
        0,
        links,
        0,
        size,
        0,
        0,
        major,
        minor,
        path.len() as u32 + 1,
        0,
    ] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::Tree;

    #[test]
    fn the_same_tree_gives_the_same_bytes_in_any_order_of_adding() {
        let mut one = Tree::default();
        one.file("etc/b", 0o644, "b");
        one.link("bin/sh", "busybox");
        one.directory("etc", 0o755);
        let mut two = Tree::default();
        two.link("bin/sh", "busybox");
        two.file("etc/b", 0o644, "b");
        assert_eq!(one.to_newc(), two.to_newc());
    }

    #[test]
    fn headers_are_aligned_and_end_with_the_trailer() {
        let mut tree = Tree::default();
        tree.file("a", 0o644, "12345");
        let bytes = tree.to_newc();
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[112..117], b"12345"); // 110 bytes of header and "a\0" end on a multiple of four
        assert_eq!(&bytes[120..126], b"070701");
        assert!(bytes.windows(10).any(|w| w == b"TRAILER!!!"));
    }
}
