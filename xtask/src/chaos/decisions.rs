//! What operators decide while faults strike: who has a seat, and by which rules epochs run. Nodes of two programs run side by
//! side meanwhile: the older one stops by itself before rules that it does not know.

use super::network::{Network, PATIENCE};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// What a node says that ends because it lacks the rules of the next epoch.
const LACKS_RULES: &str = "E_NEWER_PROTOCOL";

impl Network {
    /// Votes one more operator in, starts its node, and waits for its seat.
    pub fn admit_one_more(&mut self) -> Result<()> {
        self.until_ready()?;
        let card = self.make_node()?;
        let at = self.nodes.len() - 1;
        self.init(at, true)?;
        self.decide(&["propose-add", &card.to_string_lossy()])?;
        self.start(at)?;
        self.members.push(at);
        self.until_seats()?;
        println!("           op-{at} has joined");
        Ok(())
    }

    /// The operator that has been there longest leaves; its node stops once its seat is gone.
    pub fn let_one_leave(&mut self) -> Result<()> {
        self.until_ready()?;
        let at = self.members.remove(1);
        let name = self.nodes[at].name.clone();
        self.sign(at, &["operator", "leave", &name])?;
        self.until_seats()?;
        self.terminate(at)?;
        println!("           {name} has left");
        Ok(())
    }

    /// Raises the version of the rules by a vote. All nodes but one run a newer program by then.
    pub fn raise_rules(&mut self) -> Result<()> {
        self.until_ready()?;
        let version = self.rules + 1;
        let members = self.members();
        let (late, early) = members.split_last().context("a network has members")?;
        for at in early {
            self.terminate(*at)?;
            self.upgrade(*at, version)?;
            self.until_ready()?;
        }
        let number = version.to_string();
        self.decide(&["propose-version", &number, "--even-unknown"])?;
        self.rules = version;
        println!(
            "           rules of version {version} from the next epoch on; node {late} does not know them"
        );
        Ok(())
    }

    /// Whether every node of a member knows the rules that were decided on.
    pub fn all_know_the_rules(&self) -> bool {
        let members = self.members.iter();
        members
            .map(|at| &self.nodes[*at])
            .all(|node| node.knows >= self.rules)
    }

    /// Starts again as a newer program whoever stopped for lack of the rules.
    ///
    /// # Errors
    /// A node that ended by itself for any other reason.
    pub fn look_after(&mut self) -> Result<()> {
        while let Some((at, log)) = self.ended_by_itself()? {
            let text = fs::read_to_string(&log)?;
            let last = text
                .lines()
                .rev()
                .take(20)
                .any(|line| line.contains(LACKS_RULES));
            if self.nodes[at].knows >= self.rules || !last {
                bail!("node {at} ended by itself; see {}", log.display());
            }
            println!(
                "           node {at} has stopped before rules that it does not know, and starts as a newer program"
            );
            self.upgrade(at, self.rules)?;
        }
        Ok(())
    }

    /// Starts a node that is down as a program that knows that version.
    fn upgrade(&mut self, at: usize, version: u32) -> Result<()> {
        self.nodes[at].knows = version;
        self.write_faults(at)?;
        self.start(at)
    }

    /// One member proposes it, the others vote for it.
    fn decide(&self, proposal: &[&str]) -> Result<()> {
        let members = self.members();
        self.sign(members[0], &[&["operator"], proposal].concat())?;
        let proposals: Value = self.ask(members[0], &["operator", "proposals"])?;
        let number = proposals[0]["id"].to_string();
        for voter in &members[1..] {
            // The last ones find it accepted already.
            let _ = self.sign(*voter, &["operator", "vote", &number]);
        }
        Ok(())
    }

    fn until_seats(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let seated = |network: &Self, at: usize| {
            network.status(at).is_some_and(|status| {
                let seats = status["consensus"]["members"]
                    .as_array()
                    .map_or(0, Vec::len);
                status["seat"].is_u64() && seats == network.members.len()
            })
        };
        while !self.members.iter().all(|at| seated(self, *at)) {
            if Instant::now() > deadline {
                bail!("the new committee does not come about");
            }
            self.look_after()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}
