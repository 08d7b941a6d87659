//! A committee goes from one operator to four, to ten, and back to four and to one, by proposals and votes, while clients go on: what was
//! acknowledged was executed once, and all nodes agree on every commit, on every checkpoint and on how every epoch ended.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dagger_ledger::{
    AccountCreate, Action, Code, Digest, Key as PublicKey, OperatorName, Parameters,
    ProposalStatus, Propose, ProposedChange, SignedTransaction, Vote,
};
use dagger_node::{
    NodeConfig, NodeHandle,
    config::Retain,
    keys::{Key, KeyKind},
    store,
};
use futures_util::future::join_all;
use shadowgraph::Epoch;
use support::{Network, signed, until};
use tokio::task::JoinHandle;

/// Clients, each with one transaction at a time.
const CLIENTS: usize = 2;
/// Between two transactions of a client.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client waits for an answer before it hands the same transaction to another node.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who stays to the end: it was not there at the beginning.
const LAST: usize = 1;
/// From this one on who joins finds no log of the first epoch: many epochs have ended.
const FOUND_NO_LOGS: usize = 7;

/// What a commit holds: its digest, and its transactions with what became of them.
type Seen = (Digest, Vec<(Digest, Code)>);

/// A node that runs.
struct Running {
    handle: NodeHandle,
    /// The first commit that it executed.
    first: Option<u64>,
    /// The next one to look at.
    next: u64,
}

/// What clients do, and what the nodes have shown.
struct Watched {
    /// By operator.
    nodes: BTreeMap<usize, Running>,
    /// Signs the accounts that clients open.
    sponsor: Key,
    commits: BTreeMap<u64, Seen>,
    /// State roots by commit.
    roots: BTreeMap<u64, String>,
    /// Transactions whose execution a client was told of.
    acknowledged: BTreeSet<Digest>,
    stopping: bool,
}

impl Watched {
    /// Takes in what is new; panics where two nodes differ.
    fn look(&mut self) {
        for (node, running) in &mut self.nodes {
            for commit in running.handle.commits(running.next, usize::MAX) {
                running.first.get_or_insert(commit.index);
                running.next = commit.index + 1;
                let outcomes = commit.outcomes.iter().map(|o| (o.digest, o.code));
                let seen: Seen = (commit.digest, outcomes.collect());
                let known = self.commits.entry(commit.index);
                let known = known.or_insert_with(|| seen.clone());
                assert_eq!(*known, seen, "commit {} of node {node}", commit.index);
            }
            if let Some(checkpoint) = running.handle.status().checkpoint {
                let (commit, root) = (checkpoint.commit, checkpoint.state_root);
                let known = self.roots.entry(commit).or_insert_with(|| root.clone());
                assert_eq!(*known, root, "after commit {commit} of node {node}");
            }
        }
    }

    /// The node that a client turns to.
    fn node(&self, number: usize) -> NodeHandle {
        let running = self.nodes.values().nth(number % self.nodes.len());
        running.unwrap().handle.clone()
    }
}

type Shared = Arc<Mutex<Watched>>;

fn lock(watched: &Shared) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap()
}

/// Hands a transaction in until a node says what became of it, to one node after the other from `number` on; returns that node.
async fn hand_in(
    watched: &Shared,
    number: usize,
    transaction: SignedTransaction,
) -> (NodeHandle, String) {
    let end = tokio::time::Instant::now() + support::DEADLINE;
    for attempt in number.. {
        assert!(tokio::time::Instant::now() < end, "nobody executes it");
        let node = lock(watched).node(attempt);
        match node.submit_and_wait(transaction.clone(), PATIENCE).await {
            Ok(status) => return (node, status.outcome.unwrap().code),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    unreachable!("there are many numbers")
}

/// Opens accounts, one after the other.
async fn client(number: usize, chain: Digest, watched: Shared) {
    for n in 0.. {
        let opened = {
            let watched = lock(&watched);
            if watched.stopping {
                return;
            }
            let account = Key::generate(KeyKind::Account);
            let create = AccountCreate {
                account: format!("client-{number}-{n}"),
                key: PublicKey(account.public()),
            };
            signed(chain, &watched.sponsor, Action::AccountCreate(create))
        };
        let digest = opened.digest();
        let (_, code) = hand_in(&watched, number + n, opened).await;
        // Through a second node it may have been ordered twice; it was executed once all the same.
        let executed = [Code::Ok, Code::Repeated].map(Code::as_str);
        assert!(executed.contains(&&*code), "{code}");
        lock(&watched).acknowledged.insert(digest);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn watch(watched: Shared) {
    while !lock(&watched).stopping {
        lock(&watched).look();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A committee that changes, and its clients.
struct Play {
    network: Network,
    watched: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Play {
    async fn begin() -> Self {
        let network = Network::new(1, Parameters::default());
        // Who joins finds no log of the epochs before.
        network.configure(0, |config| config.store.retain = Retain::Epochs(0));
        let watched = Arc::new(Mutex::new(Watched {
            nodes: BTreeMap::new(),
            sponsor: network.operator_keys[0].clone(),
            commits: BTreeMap::new(),
            roots: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            stopping: false,
        }));
        let chain = network.genesis.chain_id;
        let mut this = Self {
            network,
            watched: Arc::clone(&watched),
            tasks: Vec::new(),
        };
        this.start(0).await;
        this.tasks.push(tokio::spawn(watch(Arc::clone(&watched))));
        let clients = (0..CLIENTS).map(|n| tokio::spawn(client(n, chain, Arc::clone(&watched))));
        this.tasks.extend(clients);
        this
    }

    async fn start(&mut self, node: usize) {
        self.network.start(node).await;
        let running = Running {
            handle: self.network.handle(node).clone(),
            first: None,
            next: 1,
        };
        lock(&self.watched).nodes.insert(node, running);
    }

    /// Takes a node away; clients that wait there go to another one.
    async fn stop(&mut self, node: usize) {
        let running = {
            let mut watched = lock(&self.watched);
            watched.look();
            watched.nodes.remove(&node).unwrap()
        };
        self.joined_by_snapshot(node, &running);
        drop(running);
        self.network.stop(node).await;
    }

    /// A node without a past that has not executed the first commit has the state before from others. The first to join may
    /// still find the logs of the first epochs: those go behind execution.
    fn joined_by_snapshot(&self, node: usize, running: &Running) {
        let first = running.first.unwrap();
        assert!(node < FOUND_NO_LOGS || first > 1, "node {node}: {first}");
    }

    /// Operators with a seat, as the node that stays sees it.
    fn seated(&self) -> Vec<usize> {
        let node = self.network.nodes.get(LAST).and_then(Option::as_ref);
        let node = node.map_or_else(|| self.network.handle(0), |node| node.handle());
        let members = node.status().consensus.members;
        let number = |name: &str| name.strip_prefix("op-").unwrap().parse().unwrap();
        members.iter().map(|member| number(&member.name)).collect()
    }

    /// What became of a proposal by `voters[0]`, for which the others vote.
    async fn decide(&self, change: ProposedChange, voters: &[usize]) -> String {
        let sign = |operator: usize, action| self.network.sign(operator, action);
        let propose = Action::Propose(Propose {
            change: change.clone(),
        });
        let (node, code) = hand_in(&self.watched, 0, sign(voters[0], propose)).await;
        if code != Code::Ok.as_str() {
            return code;
        }
        let proposal = node.read(|ledger| {
            let same = ledger.proposals().filter(|p| p.change == change);
            same.last().unwrap().id
        });
        let vote = |voter: usize| {
            let vote = Vote {
                proposal,
                approve: true,
            };
            hand_in(&self.watched, voter, sign(voter, Action::Vote(vote)))
        };
        let quorum = voters.len() - (voters.len() - 1) / 3;
        join_all(voters[1..quorum].iter().map(|voter| vote(*voter))).await;
        let accepted = || {
            let status = |ledger: &dagger_ledger::Ledger| {
                let mut proposals = ledger.proposals();
                proposals.find(|p| p.id == proposal).map(|p| p.status)
            };
            node.read(status) == Some(ProposalStatus::Accepted)
        };
        until("the proposal to be accepted", accepted).await;
        code
    }

    /// Admits operators one after the other, each of which joins with the genesis file and one address: the founder's, which stands in
    /// that file, and another one once the founder is gone.
    async fn grow_to(&mut self, seats: usize) {
        while self.seated().len() < seats {
            let voters = self.seated();
            let add = self.network.newcomer();
            let node = self.network.nodes.len() - 1;
            if self.network.nodes[0].is_none() {
                let last = Key::load(
                    &self.network.node_dir(LAST).join("keys/node.json"),
                    KeyKind::Node,
                );
                let last = PublicKey(last.unwrap().public()).to_hex();
                let listens = vec![self.network.config(LAST).listen];
                let knows = |config: &mut NodeConfig| drop(config.peers.insert(last, listens));
                self.network.configure(node, knows);
            }
            let code = self.decide(ProposedChange::OperatorAdd(add), &voters).await;
            assert_eq!(code, Code::Ok.as_str());
            self.start(node).await;
            self.seats(voters.len() + 1).await;
            if node == LAST {
                lock(&self.watched).sponsor = self.network.operator_keys[node].clone();
            }
        }
    }

    /// Removes operators one after the other, the founder last; each node stops once it has seen that its seat is gone.
    async fn shrink_to(&mut self, seats: usize) {
        while self.seated().len() > seats {
            let mut voters = self.seated();
            voters.sort_by_key(|operator| (*operator == 0, *operator));
            let going = match voters.len() {
                2 => 0,
                _ => voters[voters.len() - 2],
            };
            let of = OperatorName {
                operator: format!("op-{going}"),
            };
            let mut change = ProposedChange::OperatorRemove(of.clone());
            if voters.len() == 4 {
                let refused = self.decide(change, &voters).await;
                assert_eq!(refused, Code::TooFewSeats.as_str());
                change = ProposedChange::OperatorRemoveAnyway(of);
            }
            assert_eq!(self.decide(change, &voters).await, Code::Ok.as_str());
            self.seats(voters.len() - 1).await;
            assert_eq!(self.network.handle(going).status().seat, None);
            self.stop(going).await;
        }
    }

    /// Waits until all nodes that run are in an epoch of that many seats.
    async fn seats(&self, seats: usize) {
        let nodes = self.network.nodes.iter().flatten();
        let handles: Vec<_> = nodes.map(|node| node.handle()).collect();
        until("another committee", || {
            let mut states = handles.iter().map(|handle| handle.status());
            states.all(|status| status.consensus.members.len() == seats)
        })
        .await;
        let seated = handles.iter().filter(|h| h.status().seat.is_some());
        assert_eq!(seated.count(), seats);
    }

    /// Lets clients get answers from the committee as it is.
    async fn answers(&self, more: usize) {
        let acknowledged = || lock(&self.watched).acknowledged.len();
        let wanted = acknowledged() + more;
        until("answers", || acknowledged() >= wanted).await;
    }

    async fn end(mut self) {
        lock(&self.watched).stopping = true;
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        let last = lock(&self.watched).node(0);
        let accounts = last.read(|ledger| ledger.accounts().count());
        drop(last);
        let running: Vec<usize> = lock(&self.watched).nodes.keys().copied().collect();
        for node in running {
            self.stop(node).await;
        }
        self.every_epoch_ended_alike();
        let watched = lock(&self.watched);
        let (first, last) = (watched.commits.keys().next(), watched.commits.keys().last());
        assert_eq!(first, Some(&1));
        assert_eq!(
            last,
            Some(&(watched.commits.len() as u64)),
            "none is missing"
        );
        let mut executed: BTreeMap<Digest, usize> = BTreeMap::new();
        let outcomes = watched.commits.values().flat_map(|(_, outcomes)| outcomes);
        for (digest, _) in outcomes.filter(|(_, code)| *code == Code::Ok) {
            *executed.entry(*digest).or_default() += 1;
        }
        assert!(executed.values().all(|times| *times == 1));
        let lost = |digest: &&Digest| !executed.contains_key(*digest);
        assert_eq!(watched.acknowledged.iter().find(lost), None);
        assert_eq!(watched.acknowledged.len(), accounts);
    }

    /// Every node that saw an epoch's end has the same proof of it, and the last one has all.
    fn every_epoch_ended_alike(&self) {
        let mut ends = BTreeMap::new();
        for node in (0..self.network.nodes.len()).rev() {
            let config = self.network.config(node);
            let options = store::Options {
                segment_bytes: config.store.segment_bytes,
                durability: config.durability,
                discard: false,
            };
            let dir = config.data_dir.join("events");
            let chain = self.network.genesis.chain_id.0;
            let epochs = store::Epochs::open(&dir, chain, options).unwrap();
            let mut epoch = 0;
            while let Some(end) = epochs.end(Epoch(epoch)).unwrap() {
                let said = (end.certificate.checkpoint, end.next.len());
                let known = ends.entry(epoch).or_insert(said);
                assert_eq!(*known, said, "epoch {epoch} of node {node}");
                epoch += 1;
            }
            assert!(node != LAST || epoch as usize == ends.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committee_goes_from_one_to_four_to_ten_and_back_to_one() {
    let mut play = Play::begin().await;
    play.answers(3).await;
    for seats in [4, 10] {
        play.grow_to(seats).await;
        play.answers(6).await;
    }
    for seats in [4, 1] {
        play.shrink_to(seats).await;
        play.answers(6).await;
    }
    // Nobody who founded the network is left, and it goes on.
    play.grow_to(2).await;
    play.answers(2).await;
    play.end().await;
}
