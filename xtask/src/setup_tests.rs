//! Which packages are found missing, and the order in which apt is tried.

use super::*;

/// Fails every install that `works` refuses, and writes down what was asked.
struct FakeApt {
    lists: bool,
    asked: Vec<String>,
    works: fn(&str, bool) -> bool,
    updated: bool,
}

impl FakeApt {
    fn new(lists: bool, works: fn(&str, bool) -> bool) -> Self {
        Self {
            lists,
            asked: Vec::new(),
            works,
            updated: false,
        }
    }
}

impl Apt for FakeApt {
    fn has_lists(&self) -> bool {
        self.lists
    }
    fn update(&mut self) -> Result<()> {
        self.asked.push("update".into());
        self.updated = true;
        Ok(())
    }
    fn install(&mut self, arguments: &[String]) -> Result<()> {
        let line = arguments.join(" ");
        self.asked.push(line.clone());
        if !(self.works)(&line, self.updated) {
            bail!("refused");
        }
        Ok(())
    }
    fn release(&self) -> Option<String> {
        Some("bookworm".into())
    }
}

const OWN: &str = "--allow-downgrades qemu-system-x86 qemu-utils/bookworm";

#[test]
fn only_what_is_not_there_is_missing() {
    let found = missing(NEEDS, |program| {
        (program == "ssh").then(|| "/usr/bin/ssh".into())
    });
    let packages: Vec<_> = found.iter().map(|need| need.package).collect();
    assert_eq!(
        packages,
        [
            "qemu-system-x86",
            "qemu-utils",
            "passt",
            "uidmap",
            "iproute2",
            "dpkg"
        ]
    );
    assert!(missing(NEEDS, |_| Some("/usr/bin/it".into())).is_empty());
}

#[test]
fn a_plain_install_is_tried_first() {
    let mut apt = FakeApt::new(true, |_, _| true);
    install(&mut apt, &["qemu-system-x86", "openssh-client"]).unwrap();
    assert_eq!(apt.asked, ["qemu-system-x86 openssh-client"]);
}

#[test]
fn a_machine_without_lists_fetches_them_once() {
    let mut apt = FakeApt::new(false, |_, _| false);
    install(&mut apt, &["qemu-system-x86"]).unwrap_err();
    assert_eq!(apt.asked, ["update", "qemu-system-x86", OWN]);
}

#[test]
fn newer_disk_tools_from_backports_give_way_to_the_releases_own() {
    let mut apt = FakeApt::new(true, |line, _| line.contains("--allow-downgrades"));
    install(&mut apt, &["qemu-system-x86"]).unwrap();
    assert_eq!(apt.asked, ["qemu-system-x86", OWN]);
}

#[test]
fn stale_lists_are_fetched_after_a_failure() {
    let mut apt = FakeApt::new(true, |_, updated| updated);
    install(&mut apt, &["openssh-client"]).unwrap();
    assert_eq!(apt.asked, ["openssh-client", "update", "openssh-client"]);
}

#[test]
fn the_code_name_comes_from_os_release() {
    let text = "NAME=\"Debian\"\nVERSION_CODENAME=bookworm\n";
    assert_eq!(code_name(text).as_deref(), Some("bookworm"));
    assert_eq!(code_name("VERSION_CODENAME=\"\"\n"), None);
}

#[test]
fn an_empty_answer_means_yes() {
    for (answer, expected) in [("\n", true), ("y\n", true), ("YES\n", true), ("n\n", false)] {
        assert_eq!(is_yes(answer), expected, "{answer:?}");
    }
}
