//! Who may make VMs from an image.

mod cloud;

use cloud::{Cloud, key, manifest, operator_key, public, vm};
use dagger_ledger::*;

/// A cloud with a private image of `acme`, and a second account `blue` with its key.
fn with_private_image() -> (Cloud, ed25519_zebra::SigningKey) {
    let mut cloud = Cloud::new(4);
    let blue = key(5, 7);
    let create = AccountCreate {
        account: "blue".into(),
        key: public(&blue),
    };
    let create = cloud.sign(&operator_key(0), Action::AccountCreate(create));
    let publish = ImagePublish {
        image: "secret".into(),
        manifest: manifest(),
        private: true,
    };
    let publish = cloud.account(Action::ImagePublish(publish));
    cloud.ok(vec![create, publish]);
    (cloud, blue)
}

fn from_secret(name: &str) -> Action {
    Action::VmCreate(VmCreate {
        image: "acme/secret".into(),
        ..vm(name)
    })
}

fn share(with: &[&str], without: &[&str]) -> Action {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Action::ImageShare(ImageShare {
        image: "secret".into(),
        with: names(with),
        without: names(without),
    })
}

#[test]
fn a_private_image_is_for_its_account_and_those_it_is_shared_with() {
    let (mut cloud, blue) = with_private_image();
    let own = cloud.account(from_secret("own"));
    cloud.ok(vec![own]);
    let early = cloud.sign(&blue, from_secret("early"));
    assert_eq!(cloud.code(early), Code::ImagePrivate);
    let theirs = cloud.sign(&blue, share(&["blue"], &[]));
    assert_eq!(
        cloud.code(theirs),
        Code::UnknownImage,
        "it is not theirs to share"
    );
    let nobody = cloud.account(share(&["nobody"], &[]));
    assert_eq!(cloud.code(nobody), Code::UnknownAccount);
    let nothing = cloud.account(share(&[], &[]));
    assert_eq!(cloud.code(nothing), Code::MissingField);

    let shared = cloud.account(share(&["blue"], &[]));
    let create = cloud.sign(&blue, from_secret("kept"));
    cloud.ok(vec![shared, create]);
    let mut restored = Ledger::restore(&cloud.ledger.snapshot()).expect("a good snapshot");
    assert_eq!(restored.state_root(), cloud.ledger.state_root());

    let revoked = cloud.account(share(&[], &["blue"]));
    cloud.ok(vec![revoked]);
    let late = cloud.sign(&blue, from_secret("late"));
    assert_eq!(cloud.code(late), Code::ImagePrivate);
    // What was made from it stays, and starts again.
    for action in [
        Action::VmStop(VmName { vm: "kept".into() }),
        Action::VmStart(VmName { vm: "kept".into() }),
    ] {
        let action = cloud.sign(&blue, action);
        cloud.ok(vec![action]);
    }
    assert_eq!(
        cloud.ledger.state_root(),
        cloud.ledger.recompute_state_root()
    );
}
