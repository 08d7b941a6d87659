//! A VM whose guest has fallen silent and one whose guest answers, disputed by their owner and probed by the nodes of rivals, on four
//! real nodes.

use super::guests::Network;
use super::support::wait;
use serde_json::Value;

impl Network {
    /// Makes the guest's ssh server refuse everybody.
    fn silence(&self, name: &str) {
        let vm = self.vm(name);
        let instance = format!("{}-{}", vm["id"], vm["lease_epoch"]);
        let file = self.homes[0].data.join("vms").join(instance).join("silent");
        std::fs::write(file, "").unwrap();
    }

    /// Disputes a VM and returns the dispute once it is decided.
    fn dispute(&self, name: &str) -> Value {
        let dispute = format!("vm dispute {name} ssh-does-not-answer");
        self.signed(&self.key(), &dispute);
        wait("a decision", || {
            let dispute = self.vm(name)["dispute"].clone();
            (dispute["status"] != "open").then_some(dispute)
        })
    }
}

/// Who probed, and what they found.
fn probes(dispute: &Value) -> Vec<(&str, bool, &str)> {
    let probes = dispute["probes"].as_array().unwrap();
    let probes = probes.iter().map(|probe| {
        let operator = probe["operator"].as_str().unwrap();
        let detail = probe["detail"].as_str().unwrap();
        (operator, probe["reached"].as_bool().unwrap(), detail)
    });
    probes.collect()
}

#[test]
fn rivals_probe_what_is_disputed_and_their_word_decides() {
    let root = tempfile::tempdir().unwrap();
    let network = Network::start(root.path(), &["alpha", "bravo", "charlie", "delta"]);
    for name in ["live", "dead"] {
        network.create(name);
    }
    // Waited for, a reboot ends with another start, not with the old one.
    let starts = |vm: &Value| {
        let history = vm["history"].as_array().unwrap().iter();
        history.filter(|event| event["phase"] == "running").count()
    };
    network.signed(&network.key(), "vm reboot dead --wait");
    let rebooted = network.vm("dead");
    assert_eq!(
        (&rebooted["phase"], starts(&rebooted)),
        (&"running".into(), 2)
    );

    let dismissed = network.dispute("live");
    assert_eq!(dismissed["status"], "dismissed", "{dismissed}");
    for (operator, reached, detail) in probes(&dismissed) {
        assert_ne!(operator, "alpha", "a host does not probe its own");
        assert!(reached);
        assert_eq!(detail, "its ssh server greets with SSH-2.0-script");
    }
    network.silence("dead");
    let upheld = network.dispute("dead");
    assert_eq!(upheld["status"], "upheld", "{upheld}");
    for (operator, reached, detail) in probes(&upheld) {
        assert_ne!(operator, "alpha", "a host does not probe its own");
        assert!(!reached);
        assert!(detail.contains("no ssh server"), "{detail}");
    }
    assert!(
        probes(&dismissed).len() > 1 && probes(&upheld).len() > 1,
        "more than f"
    );
    for name in ["live", "dead"] {
        network.signed(&network.key(), &format!("vm delete {name} --wait"));
    }
}
