//! An in-memory cluster in virtual time: carries messages with seeded delays and losses, keeps logs, answers from
//! them, crashes and recovers. Real signatures. Only what tests of rules need; the simulator goes further.
#![allow(dead_code)] // each test binary uses its part

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shadowgraph::*;

pub const CHAIN: ChainId = ChainId([9; 32]);

/// A generator for delays and losses: equal seeds, equal runs.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

#[derive(Default)]
pub struct Node {
    pub replica: Option<Replica>,
    pub log: Vec<VerifiedEvent>,
    pub commits: Vec<(u64, Commit)>,
    pub certificates: Vec<CheckpointCertificate>,
    pub proofs: Vec<EquivocationProof>,
    pub faults: Vec<(Peer, PeerFault)>,
    pub halts: Vec<HaltReason>,
    pub store_reads: usize,
    pub ends: Vec<EpochEnd>,
    pub returned: Vec<Bytes>,
    pub needs_snapshot: usize,
}

impl Node {
    pub fn transactions(&self) -> Vec<String> {
        let events = self.commits.iter().flat_map(|(_, commit)| &commit.events);
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        events
            .flat_map(VerifiedEvent::transactions)
            .map(text)
            .collect()
    }

    pub fn status(&self) -> ReplicaStatus {
        self.replica.as_ref().expect("it runs").status()
    }
}

pub struct Cluster {
    pub keys: Vec<SigningKey>,
    pub committee: Committee,
    pub parameters: Parameters,
    pub nodes: Vec<Node>,
    pub now_ms: u64,
    pub rng: Rng,
    /// The least and the most delay of a message.
    pub delay_ms: (u64, u64),
    pub loss_permille: u64,
    /// Pairs (from, to) between which nothing passes.
    pub cut: BTreeSet<(usize, usize)>,
    /// Members whose application computes other roots.
    pub diverging: BTreeSet<usize>,
    /// Per epoch: its first checkpoint commit of this index or above ends it, and these nodes have the next one's seats.
    pub plan: BTreeMap<u64, (u64, Vec<usize>)>,
    /// Checkpoints below this commit were executed in an earlier life of the applications: they are not answered again.
    pub executed_below: u64,
    /// Members whose old logs are gone.
    pub pruned: BTreeSet<usize>,
    /// Own events pushed, per member.
    pub pushed: Vec<usize>,
    /// Wake hints sent, by all.
    pub hints: usize,
    queue: BTreeMap<(u64, u64), (usize, usize, Bytes)>,
    sequence: u64,
}

pub fn keys(count: usize) -> Vec<SigningKey> {
    (0..count)
        .map(|seat| {
            let mut seed = [1; 32];
            seed[..8].copy_from_slice(&(seat as u64).to_le_bytes());
            SigningKey::from_bytes(seed)
        })
        .collect()
}

pub fn committee(weights: &[u64]) -> Committee {
    let members = keys(weights.len()).into_iter().zip(weights);
    let members = members
        .map(|(key, weight)| Member {
            key: key.public(),
            weight: *weight,
        })
        .collect();
    Committee::new(Epoch(0), members).expect("a committee")
}

impl Cluster {
    /// All members run from time 1,000,000 on.
    pub fn new(weights: &[u64], seed: u64, parameters: Parameters) -> Self {
        let mut cluster = Self::idle(weights, seed, parameters);
        for seat in 0..weights.len() {
            cluster.start(seat);
        }
        cluster
    }

    /// Nodes that all run; the first `members` have the seats of the first epoch, the others follow.
    pub fn followed(members: usize, nodes: usize, seed: u64, parameters: Parameters) -> Self {
        let mut cluster = Self::idle(&vec![1; nodes], seed, parameters);
        let first: Vec<usize> = (0..members).collect();
        cluster.committee = cluster.committee_of(0, &first);
        for node in 0..nodes {
            let me = (node < members).then_some(MemberIndex(node as u16));
            let config = Config {
                me,
                ..cluster.config(node)
            };
            cluster.start_from(node, config);
        }
        cluster
    }

    /// Nobody runs yet.
    pub fn idle(weights: &[u64], seed: u64, parameters: Parameters) -> Self {
        Self {
            keys: keys(weights.len()),
            committee: committee(weights),
            parameters,
            nodes: weights.iter().map(|_| Node::default()).collect(),
            now_ms: 1_000_000,
            rng: Rng(seed),
            delay_ms: (5, 15),
            loss_permille: 0,
            cut: BTreeSet::new(),
            diverging: BTreeSet::new(),
            plan: BTreeMap::new(),
            executed_below: 0,
            pruned: BTreeSet::new(),
            pushed: vec![0; weights.len()],
            hints: 0,
            queue: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn config(&self, seat: usize) -> Config {
        Config {
            chain_id: CHAIN,
            committee: self.committee.clone(),
            me: Some(MemberIndex(seat as u16)),
            start: EpochStart::default(),
            parameters: self.parameters.clone(),
        }
    }

    /// Starts or restarts a member from its log.
    pub fn start(&mut self, seat: usize) {
        self.start_from(seat, self.config(seat));
    }

    /// As [`Self::start`], from an epoch's start on: only the logs from there are read.
    pub fn start_from(&mut self, seat: usize, config: Config) {
        let first = config.committee.epoch();
        let signer = config.me.map(|_| self.keys[seat].clone());
        self.nodes[seat].commits.clear();
        self.nodes[seat].certificates.clear();
        let mut recovery = Recovery::new(config, signer, self.now_ms);
        recovery.hold_key(self.keys[seat].clone());
        let log: Vec<_> = self.nodes[seat].log.clone();
        let ends = std::mem::take(&mut self.nodes[seat].ends);
        for end in &ends {
            if end.epoch() < first {
                self.nodes[seat].ends.push(end.clone());
            }
        }
        let last = log.iter().map(|event| event.epoch().0).max().unwrap_or(0);
        let last = last.max(ends.last().map_or(0, |end| end.epoch().0));
        for epoch in first.0..=last {
            for event in log.iter().filter(|event| event.epoch().0 == epoch) {
                recovery.replay(event.clone());
                self.drain_recovery(seat, &mut recovery);
            }
            if let Some(end) = ends.iter().find(|end| end.epoch().0 == epoch) {
                recovery.ended(end.clone());
                self.drain_recovery(seat, &mut recovery);
            }
        }
        self.nodes[seat].replica = Some(recovery.finish(self.now_ms));
        self.drain(seat);
    }

    fn drain_recovery(&mut self, seat: usize, recovery: &mut Recovery) {
        while let Some(output) = recovery.poll_output() {
            match output {
                Output::Commit(commit) => {
                    if let Some(Input::Executed {
                        commit,
                        outcomes_root,
                        state_root,
                        next,
                    }) = self.execute(seat, commit)
                    {
                        recovery.executed(commit, outcomes_root, state_root, next);
                    }
                }
                Output::Certificate(certificate) => self.nodes[seat].certificates.push(certificate),
                Output::EpochEnded(end) => self.nodes[seat].ends.push(end),
                Output::Halt(reason) => self.nodes[seat].halts.push(reason),
                other => panic!("{other:?} while reading a log"),
            }
        }
    }

    /// The committee of these nodes.
    pub fn committee_of(&self, epoch: u64, nodes: &[usize]) -> Committee {
        let seat = |node: &usize| Member {
            key: self.keys[*node].public(),
            weight: 1,
        };
        Committee::new(Epoch(epoch), nodes.iter().map(seat).collect()).expect("a committee")
    }

    /// How `viewer` numbers `node` in its epoch.
    fn peer(&self, viewer: usize, node: usize) -> Peer {
        let replica = self.nodes[viewer].replica.as_ref().expect("it runs");
        let seat = replica.committee().seat(&self.keys[node].public());
        seat.map_or(Peer::Follower(node as u64), Peer::Member)
    }

    /// Whom `viewer` means.
    fn node_of(&self, viewer: usize, peer: Peer) -> usize {
        let replica = self.nodes[viewer].replica.as_ref().expect("it runs");
        match peer {
            Peer::Follower(node) => node as usize,
            Peer::Member(seat) => {
                let key = replica.committee().member(seat).expect("a seat").key;
                let holder = self.keys.iter().position(|own| own.public() == key);
                holder.expect("somebody holds the key")
            }
        }
    }

    /// Whether all of these are in this epoch.
    pub fn all_in(&self, nodes: &[usize], epoch: u64) -> bool {
        let of = |node: &usize| self.nodes[*node].status().epoch;
        nodes.iter().all(|node| of(node) == Epoch(epoch))
    }

    pub fn crash(&mut self, seat: usize) {
        self.nodes[seat].replica = None;
    }

    pub fn isolate(&mut self, seat: usize) {
        for other in 0..self.len() {
            self.cut.insert((seat, other));
            self.cut.insert((other, seat));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn submit(&mut self, seat: usize, text: &str) {
        let replica = self.nodes[seat].replica.as_mut().expect("it runs");
        replica
            .submit(self.now_ms, Bytes::from(text.to_owned()))
            .expect("it is accepted");
        self.drain(seat);
    }

    pub fn input(&mut self, seat: usize, input: Input) {
        if let Some(replica) = self.nodes[seat].replica.as_mut() {
            replica.handle(self.now_ms, input);
            self.drain(seat);
        }
    }

    pub fn post(&mut self, from: usize, to: usize, message: &Message) {
        if from == to || self.cut.contains(&(from, to)) || self.rng.below(1000) < self.loss_permille
        {
            return;
        }
        let (least, most) = self.delay_ms;
        let at_ms = self.now_ms + least + self.rng.below(most - least + 1);
        self.sequence += 1;
        self.queue
            .insert((at_ms, self.sequence), (from, to, message.encode()));
    }

    /// What is under way from a node, and to whom.
    pub fn under_way(&self, from: usize) -> Vec<(usize, Message)> {
        let sent = self.queue.values().filter(|(sender, ..)| *sender == from);
        let read = |wire: &Bytes| Message::decode(wire.clone()).expect("peers here encode well");
        sent.map(|(_, to, wire)| (*to, read(wire))).collect()
    }

    fn drain(&mut self, seat: usize) {
        while let Some(output) = self.nodes[seat]
            .replica
            .as_mut()
            .and_then(Replica::poll_output)
        {
            match output {
                Output::Persist(event) => self.nodes[seat].log.push(event),
                Output::Send {
                    to: Recipient::All,
                    message,
                } => {
                    self.pushed[seat] += usize::from(matches!(message, Message::Events(_)));
                    (0..self.len()).for_each(|peer| self.post(seat, peer, &message));
                }
                Output::Send {
                    to: Recipient::One(peer),
                    message,
                } => {
                    self.hints += usize::from(matches!(message, Message::Wake(_)));
                    self.post(seat, self.node_of(seat, peer), &message);
                }
                Output::ReadStore { to, request } => {
                    self.nodes[seat].store_reads += 1;
                    let current = self.nodes[seat].status().epoch;
                    let gone = request.epoch < current && self.pruned.contains(&seat);
                    let log: &[_] = if gone { &[] } else { &self.nodes[seat].log };
                    let answer = Message::Events(read_store(log, &request));
                    self.post(seat, self.node_of(seat, to), &answer);
                }
                Output::ReadEpochEnd { to, epoch } => {
                    let kept = self.nodes[seat].ends.iter();
                    let end = kept.clone().find(|end| end.epoch() == epoch).cloned();
                    if let Some(end) = end {
                        let to = self.node_of(seat, to);
                        self.post(seat, to, &Message::EpochEnd(Box::new(end)));
                    }
                }
                Output::EpochEnded(end) => self.nodes[seat].ends.push(end),
                Output::NeedsSnapshot { .. } => self.nodes[seat].needs_snapshot += 1,
                Output::Returned(transactions) => self.nodes[seat].returned.extend(transactions),
                Output::Commit(commit) => self.on_commit(seat, commit),
                Output::Certificate(certificate) => self.nodes[seat].certificates.push(certificate),
                Output::Equivocation(proof) => self.nodes[seat].proofs.push(proof),
                Output::PeerFault { peer, fault } => self.nodes[seat].faults.push((peer, fault)),
                Output::Halt(reason) => self.nodes[seat].halts.push(reason),
            }
        }
    }

    /// The application: what it answers to a checkpoint.
    fn execute(&mut self, seat: usize, commit: Commit) -> Option<Input> {
        let planned = self.plan.get(&commit.epoch.0);
        let next = planned.filter(|(index, _)| commit.index.0 >= *index);
        let next = next.map(|(_, nodes)| self.committee_of(commit.epoch.0 + 1, nodes));
        let asked = commit.is_checkpoint && commit.index.0 >= self.executed_below;
        let executed = asked.then(|| Input::Executed {
            commit: commit.index,
            outcomes_root: commit.digest,
            state_root: Digest([u8::from(self.diverging.contains(&seat)); 32]),
            next,
        });
        self.nodes[seat].commits.push((self.now_ms, commit));
        executed
    }

    fn on_commit(&mut self, seat: usize, commit: Commit) {
        if let Some(input) = self.execute(seat, commit) {
            let replica = self.nodes[seat].replica.as_mut().expect("it runs");
            replica.handle(self.now_ms, input);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, wire: Bytes) {
        if self.nodes[to].replica.is_none() {
            return;
        }
        let peer = self.peer(to, from);
        let replica = self.nodes[to].replica.as_ref().expect("checked above");
        let committee = replica.committee().clone();
        let input = match Message::decode(wire).expect("peers here encode well") {
            Message::Events(events) => {
                let (here, foreign): (Vec<_>, Vec<_>) = events
                    .into_iter()
                    .map(|bytes| UnverifiedEvent::decode(bytes).expect("an event"))
                    .partition(|event| event.epoch() == committee.epoch());
                if !foreign.is_empty() {
                    self.input(
                        to,
                        Input::Foreign {
                            from: peer,
                            events: foreign,
                        },
                    );
                    if here.is_empty() {
                        return;
                    }
                }
                let verified = verify_events(here, &CHAIN, &committee);
                Input::Events {
                    from: peer,
                    events: verified.into_iter().filter_map(Result::ok).collect(),
                }
            }
            message => Input::Message {
                from: peer,
                message,
            },
        };
        self.input(to, input);
    }

    fn next_at_ms(&self) -> Option<u64> {
        let deadlines = self
            .nodes
            .iter()
            .filter_map(|node| node.replica.as_ref()?.next_deadline_ms());
        let first = self.queue.keys().next().map(|(at_ms, _)| *at_ms);
        deadlines.chain(first).min()
    }

    /// One step of time: the next message or deadline.
    pub fn step(&mut self) {
        let Some(at_ms) = self.next_at_ms() else {
            return;
        };
        self.now_ms = self.now_ms.max(at_ms);
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= self.now_ms)
        {
            let (from, to, wire) = entry.remove();
            self.deliver(from, to, wire);
        }
        for seat in 0..self.len() {
            let replica = self.nodes[seat].replica.as_ref();
            if replica
                .and_then(Replica::next_deadline_ms)
                .is_some_and(|due_ms| due_ms <= self.now_ms)
            {
                self.input(seat, Input::Timeout);
            }
        }
    }

    pub fn run_for(&mut self, duration_ms: u64) {
        let end_ms = self.now_ms + duration_ms;
        while self.next_at_ms().is_some_and(|at_ms| at_ms <= end_ms) {
            self.step();
        }
        self.now_ms = end_ms;
    }

    /// Runs until `done`; virtual time bounds the wait.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end_ms = self.now_ms + 600_000;
        while !done(self) {
            assert!(
                self.now_ms < end_ms,
                "{what}: not within ten minutes\n{}",
                self.describe()
            );
            self.step();
        }
    }

    pub fn describe(&self) -> String {
        let running = self.nodes.iter().filter_map(|node| node.replica.as_ref());
        running
            .map(|replica| format!("{:?}\n", replica.status()))
            .collect()
    }

    /// Whether all the members have these transactions in their order.
    pub fn all_have(&self, seats: &[usize], texts: &[String]) -> bool {
        seats.iter().all(|seat| {
            let have: BTreeSet<_> = self.nodes[*seat].transactions().into_iter().collect();
            texts.iter().all(|text| have.contains(text))
        })
    }

    /// No two members differ in a commit, nobody output a transaction twice, and commits chain.
    pub fn check_agreement(&self) {
        let longest = self
            .nodes
            .iter()
            .max_by_key(|node| node.commits.len())
            .expect("a node");
        for node in &self.nodes {
            let mut previous = Digest::default();
            for ((_, commit), (_, expected)) in node.commits.iter().zip(&longest.commits) {
                assert_eq!(
                    commit.digest, expected.digest,
                    "commit {} differs",
                    commit.index
                );
                assert_eq!(commit.previous, previous);
                previous = commit.digest;
            }
            let texts = node.transactions();
            let distinct: BTreeSet<_> = texts.iter().collect();
            assert_eq!(
                distinct.len(),
                texts.len(),
                "a transaction was output twice"
            );
        }
    }
}

/// What a driver does with `Output::ReadStore`.
pub fn read_store(log: &[VerifiedEvent], request: &StoreRequest) -> Vec<Bytes> {
    let wanted = |event: &&VerifiedEvent| match &request.wanted {
        SyncRequest::Events(references) => references.contains(event.reference()),
        SyncRequest::After(after) => after.wants(event.round(), event.creator()),
    };
    let of_epoch = |event: &&VerifiedEvent| event.epoch() == request.epoch;
    let mut events: Vec<_> = log.iter().filter(of_epoch).filter(wanted).collect();
    events.sort_by_key(|event| event.round());
    let mut room = request.bytes_max;
    let mut answer = Vec::new();
    for event in events {
        if event.bytes().len() > room && !answer.is_empty() {
            break;
        }
        room = room.saturating_sub(event.bytes().len());
        answer.push(event.bytes().clone());
    }
    answer
}
