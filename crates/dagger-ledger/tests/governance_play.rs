//! Operators come, go, propose, vote and adopt accounts at random while epochs end, beside a naive model of these rules. A failure is
//! a seed: rerun with `DAGGER_LEDGER_SEED=<seed>`; the number of commits is `DAGGER_LEDGER_STEPS`.

mod cloud;
mod council;

use std::collections::BTreeMap;

use cloud::{genesis, key, node_key, operator_key, public};
use council::Council;
use dagger_ledger::*;

const OPERATORS: u64 = 5;
const NAMES: u64 = 40;
/// Commits of one game; the names are used up by then.
const GAME: u64 = 400;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % sides
    }
}

struct Match {
    ledger: Ledger,
    chain: Digest,
    council: Council,
    dice: Dice,
    commit: u64,
    time_ms: u64,
    salt: u64,
    seen: BTreeMap<String, u64>,
}

impl Match {
    fn new(seed: u64) -> Self {
        let parameters = Parameters {
            proposal_ms: 20_000,
            epoch_ms: 30_000,
            epoch_transactions: 150,
            ..Parameters::default()
        };
        let genesis = genesis(OPERATORS, parameters);
        Self {
            ledger: Ledger::from_genesis(&genesis),
            chain: genesis.chain_id,
            council: Council::new(OPERATORS, genesis.parameters, genesis.time_ms),
            dice: Dice(seed),
            commit: 0,
            time_ms: genesis.time_ms,
            salt: 0,
            seen: BTreeMap::new(),
        }
    }

    /// Somebody's number; mostly one of those who count now.
    fn operator(&mut self) -> u64 {
        let there = self.council.active();
        if self.dice.roll(15) == 0 {
            self.dice.roll(NAMES)
        } else {
            there[self.dice.roll(there.len() as u64) as usize]
        }
    }

    fn change(&mut self) -> ProposedChange {
        let operator = format!("operator-{}", self.operator());
        match self.dice.roll(12) {
            0..5 => {
                let number = self.dice.roll(NAMES);
                let keys = if self.dice.roll(10) == 0 {
                    self.operator()
                } else {
                    number
                };
                ProposedChange::OperatorAdd(OperatorAdd {
                    name: format!("operator-{number}"),
                    operator_key: public(&operator_key(keys)),
                    consensus_key: public(&key(3, keys)),
                    node_key: public(&node_key(keys)),
                    weight: 1 + self.dice.roll(3),
                    address: None,
                })
            }
            5..7 => ProposedChange::OperatorRemove(OperatorName { operator }),
            7 => ProposedChange::OperatorRemoveAnyway(OperatorName { operator }),
            8 => {
                let quota = Quota {
                    vms: self.dice.roll(9),
                    vcpus: 8,
                    memory_mib: 4_096,
                    disk_mib: 65_536,
                };
                let allocation = (self.dice.roll(2) == 0).then_some(quota);
                ProposedChange::Allocation(OperatorAllocation {
                    operator,
                    allocation,
                })
            }
            9 => ProposedChange::ProtocolVersion(ProtocolVersion {
                version: 1 + self.dice.roll(12) as u32,
            }),
            _ => ProposedChange::Parameters(Box::new(ParametersChange {
                epoch_ms: Some(500 + 10_000 * self.dice.roll(5)),
                proposal_ms: (self.dice.roll(2) == 0).then(|| 5_000 + self.dice.roll(20_000)),
                ..ParametersChange::default()
            })),
        }
    }

    fn action(&mut self) -> Action {
        match self.dice.roll(20) {
            0..4 => {
                let change = self.change();
                Action::Propose(Propose { change })
            }
            4..14 => {
                let newest = self.council.proposal_ids;
                let back = self.dice.roll(6);
                Action::Vote(Vote {
                    proposal: newest.saturating_sub(back),
                    approve: self.dice.roll(5) > 0,
                })
            }
            14 => Action::OperatorLeave(OperatorLeave {}),
            15 | 16 => {
                let number = self.dice.roll(30);
                Action::AccountCreate(AccountCreate {
                    account: format!("account-{number}"),
                    key: public(&key(5, number)),
                })
            }
            _ => Action::AccountAdopt(AccountName {
                account: format!("account-{}", self.dice.roll(30)),
            }),
        }
    }

    fn step(&mut self) {
        let (mut real, mut naive) = (Vec::new(), Vec::new());
        for _ in 0..self.dice.roll(10) {
            let (signer, action) = (self.operator(), self.action());
            self.salt += 1;
            let transaction = Transaction {
                chain: self.chain,
                signer: public(&operator_key(signer)),
                salt: self.salt.to_string(),
                valid_until_ms: self.time_ms + 300_000,
                action: action.clone(),
            };
            let body = serde_json::to_vec(&transaction).unwrap();
            real.push(CheckedTransaction::from_verified_body(&self.chain, &body));
            naive.push((signer, action));
        }
        self.time_ms += [0, 100, 700, 1_500, 4_000][self.dice.roll(5) as usize];
        self.commit += 1;
        let is_checkpoint = self.dice.roll(4) == 0;
        let active: Vec<(u16, u64)> = (0..self.council.seats.len() as u16)
            .map(|member| (member, self.commit))
            .collect();
        let output = self.ledger.execute(&CommitInput {
            index: self.commit,
            digest: [0; 32],
            time_ms: self.time_ms,
            active_members: &active,
            transactions: &real,
            epoch: self.council.epoch,
            is_checkpoint,
        });
        let codes: Vec<Code> = output.outcomes.iter().map(|outcome| outcome.code).collect();
        let (expected, ended) = self.council.execute(self.time_ms, &naive, is_checkpoint);
        for ((_, action), code) in naive.iter().zip(&codes) {
            let what = match action {
                Action::Propose(_) => "propose",
                Action::Vote(_) => "vote",
                Action::OperatorLeave(_) => "leave",
                Action::AccountCreate(_) => "create",
                _ => "adopt",
            };
            *self.seen.entry(format!("{what} {code:?}")).or_default() += 1;
        }
        for proposal in self.ledger.proposals() {
            *self
                .seen
                .entry(format!("{:?}", proposal.status))
                .or_default() += 1;
        }
        assert_eq!(codes, expected);
        assert_eq!(output.next_epoch.is_some(), ended);
        *self.seen.entry(format!("epoch ended {ended}")).or_default() += 1;
        self.compare();
    }

    fn compare(&self) {
        let (ledger, council) = (&self.ledger, &self.council);
        assert_eq!(ledger.epoch().number, council.epoch);
        let seats = ledger.committee();
        let seats: Vec<_> = seats.iter().map(|s| (s.operator.0, s.weight)).collect();
        assert_eq!(seats, council.seats);
        let operators: Vec<_> = ledger
            .operators()
            .map(|o| {
                let active = o.status == OperatorStatus::Active;
                (o.name.clone(), o.weight, active, o.allocation)
            })
            .collect();
        assert_eq!(operators, council.operators());
        let of = |operators: &[OperatorId]| operators.iter().map(|o| o.0).collect::<Vec<_>>();
        let proposals: Vec<_> = ledger
            .proposals()
            .map(|p| (p.id, p.status, of(&p.approvals), of(&p.rejections)))
            .collect();
        assert_eq!(proposals, council.proposals());
        let accounts: Vec<_> = ledger
            .accounts()
            .map(|a| (a.name.clone(), a.sponsor.0))
            .collect();
        assert_eq!(accounts, council.accounts);
        assert_eq!(ledger.protocol_version(), council.version());
        assert_eq!(ledger.protocol_version_decided(), council.decided());
        assert_eq!(*ledger.parameters(), council.parameters);
    }

    /// What is too slow for every step. Goes on with the copy: nothing may depend on how the state came about.
    fn look_closely(&mut self) {
        self.ledger.invariants().expect("invariants");
        let root = self.ledger.state_root();
        assert_eq!(root, self.ledger.recompute_state_root());
        let mut copy = Ledger::restore(&self.ledger.snapshot()).expect("a good snapshot");
        assert_eq!(copy.state_root(), root);
        self.ledger = copy;
    }
}

fn play(seed: u64, steps: u64) -> BTreeMap<String, u64> {
    let mut game = Match::new(seed);
    for step in 0..steps {
        game.step();
        if step % 29 == 28 {
            game.look_closely();
        }
    }
    game.seen
}

#[test]
fn random_decisions_do_not_tell_the_ledger_from_the_council() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let steps = number("DAGGER_LEDGER_STEPS").unwrap_or(8_000);
    if let Some(seed) = number("DAGGER_LEDGER_SEED") {
        play(seed, steps);
        return;
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..steps.div_ceil(GAME) {
        println!("DAGGER_LEDGER_SEED={seed}");
        for (what, times) in play(seed, GAME.min(steps)) {
            *seen.entry(what).or_default() += times;
        }
    }
    println!("{seen:#?}");
    // What the play must have reached, or it tests too little.
    for what in [
        "propose Ok",
        "propose NameTaken",
        "propose KeyInUse",
        "propose UnknownOperator",
        "propose OutOfRange",
        "propose TooFewSeats",
        "propose TooManyLeave",
        "propose TooMany",
        "propose UnknownSigner",
        "propose Unauthorised",
        "vote Ok",
        "vote UnknownProposal",
        "vote AlreadyVoted",
        "vote Unauthorised",
        "leave Ok",
        "leave TooFewSeats",
        "leave TooManyLeave",
        "leave LastOperator",
        "create Ok",
        "create NameTaken",
        "adopt Ok",
        "adopt UnknownAccount",
        "adopt AlreadyDone",
        "adopt Unauthorised",
        "Accepted",
        "Rejected",
        "Expired",
        "Void",
        "epoch ended true",
    ] {
        assert!(seen.contains_key(what), "{what} was never reached");
    }
}
