//! What the demo prints: numbered steps, commands as a person would type them, facts with the time
//! since the network began to start. Colors on a terminal, the same words without them elsewhere.

use crate::shell::seconds;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const STEPS: usize = 8;

/// The demo's voice.
pub struct Screen {
    color: bool,
    step: usize,
    step_started: Option<Instant>,
    clock: Option<Instant>,
}

/// How a piece of text is shown on a terminal.
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Good,
    Bad,
    Command,
}

impl Screen {
    /// A screen that speaks to standard output.
    pub fn new() -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            color,
            step: 0,
            step_started: None,
            clock: None,
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Command => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed pipe ends the demo by its signal, not here.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// The title.
    pub fn title(&self, text: &str) {
        self.line(&self.paint(Style::Bold, text));
    }

    /// Starts the clock that facts are stamped with.
    pub fn start_clock(&mut self) {
        self.clock = Some(Instant::now());
    }

    /// Time since the clock was started.
    pub fn elapsed(&self) -> Duration {
        self.clock.map(|clock| clock.elapsed()).unwrap_or_default()
    }

    /// The heading of the next step.
    pub fn step(&mut self, name: &str) {
        self.step += 1;
        self.step_started = Some(Instant::now());
        self.line("");
        self.line(&self.paint(Style::Bold, &format!("[{}/{STEPS}] {name}", self.step)));
    }

    fn stamp(&self) -> String {
        match self.clock {
            Some(clock) => format!("{:>7.1} s", clock.elapsed().as_secs_f64()),
            None => " ".repeat(9),
        }
    }

    /// A command as a person would type it.
    pub fn command(&self, text: &str) {
        let stamp = self.paint(Style::Dim, &self.stamp());
        self.line(&format!(
            "{stamp}  {}",
            self.paint(Style::Command, &format!("$ {text}"))
        ));
    }

    /// Something that has happened.
    pub fn fact(&self, text: &str) {
        let stamp = self.paint(Style::Dim, &self.stamp());
        self.line(&format!("{stamp}  {text}"));
    }

    /// What a command printed, indented below it.
    pub fn printed(&self, text: &str) {
        let indent = " ".repeat(11);
        for line in text.lines() {
            self.line(format!("{indent}{line}").trim_end());
        }
    }

    /// Something that the demo has verified.
    pub fn verified(&self, text: &str) {
        let stamp = self.paint(Style::Dim, &self.stamp());
        self.line(&format!(
            "{stamp}  {} {text}",
            self.paint(Style::Good, "ok")
        ));
    }

    /// How long the current step took, for those outside the clock.
    pub fn step_took(&self) {
        if let Some(started) = self.step_started {
            self.fact(&self.paint(Style::Dim, &format!("took {}", seconds(started.elapsed()))));
        }
    }

    /// The end of a demo that failed.
    pub fn failed(&self, text: &str) {
        self.line("");
        self.line(&format!(
            "{} {text}",
            self.paint(Style::Bad, "demo failed:")
        ));
    }

    /// A plain heading or line at the end.
    pub fn say(&self, text: &str) {
        self.line(text);
    }
}
