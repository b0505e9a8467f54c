//! The machine, and what else it does meanwhile; times and memory of a process (`proc(5)`).

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What the numbers were measured on.
#[derive(Debug)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    kernel: String,
    load_before: String,
    load_after: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
        Self {
            cpu: model.unwrap_or("unknown").trim_matches([' ', '\t', ':']).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load_before: load(),
            load_after: String::new(),
        }
    }

    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }

    pub(crate) fn text(&self) -> String {
        let Self { cpu, cpus, kernel, load_before, load_after } = self;
        format!(
            "{cpus} CPUs ({cpu}), Linux {kernel}; load average {load_before} before, {load_after} after"
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpus": self.cpus,
            "kernel": self.kernel,
            "load_before": self.load_before,
            "load_after": self.load_after,
        })
    }
}

/// The first three fields of `/proc/loadavg`.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Counts what programs that are not ours take from the machine.
#[derive(Debug)]
pub(crate) struct Meter {
    begun: Instant,
    before: Option<Ticks>,
}

/// What the machine did besides our measurement, in parts of all its CPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    /// Programs that are not ours.
    pub(crate) others: f64,
    /// Time that the hypervisor gave to somebody else.
    pub(crate) stolen: f64,
    /// Duration of the measurement.
    pub(crate) seconds: f64,
}

/// Clock ticks since boot.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    /// All programs, in user and system mode, and interrupts, as the clock's tick finds them.
    sampled: f64,
    /// The same as the sum over all processes.
    added: f64,
    stolen: f64,
    total: f64,
    /// This process and all of its children that ended.
    ours: f64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), before: Ticks::read() }
    }

    /// To be called when all children have ended: a living one would count as a stranger.
    ///
    /// What strangers took is the difference of two large numbers, counted in two ways, and the
    /// larger is reported: the tick misses processes that sleep often (a tenth of the machine
    /// in a ping-pong), the sum loses those that nobody waited for. Below nothing means that both
    /// erred, and is not hidden.
    pub(crate) fn stop(self) -> Noise {
        let seconds = self.begun.elapsed().as_secs_f64();
        let (Some(before), Some(after)) = (self.before, Ticks::read()) else {
            return Noise { others: f64::NAN, stolen: f64::NAN, seconds };
        };
        let total = (after.total - before.total).max(1.0);
        let all = (after.sampled - before.sampled).max(after.added - before.added);
        let others = all - (after.ours - before.ours);
        let stolen = after.stolen - before.stolen;
        Noise { others: others / total, stolen: stolen / total, seconds }
    }
}

impl Ticks {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let fields: Vec<f64> =
            line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = fields[..] else {
            return None;
        };
        // `guest` is in `user` already.
        let total = fields.iter().take(8).sum();
        // Where interrupts are counted apart here, a process's own times hold them too.
        let sampled = user + nice + system + irq + softirq;
        // A process that was waited for is in its parent's sum from then on.
        let added = fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| {
                // Not `self`, which is a process once more.
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                stat(&pid.to_string()).ok()
            })
            .map(|fields| with_children(&fields))
            .sum();
        Some(Self { sampled, added, stolen, total, ours: with_children(&stat("self").ok()?) })
    }
}

/// Ticks of a process and of its children that were waited for.
fn with_children(fields: &[f64]) -> f64 {
    fields.iter().skip(UTIME).take(4).sum()
}

/// Where `utime` is in [`stat`]; then come `stime`, `cutime` and `cstime`.
const UTIME: usize = 11;

/// The numbers of `/proc/PID/stat` after the name, from field 3 on (the state, which is none, is 0).
fn stat(pid: &str) -> Result<Vec<f64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // A name may hold anything, the last parenthesis ends it.
    let (_, rest) = text.rsplit_once(')').context("not the form of /proc/PID/stat")?;
    Ok(rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

/// CPU time of a process so far, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let fields = stat(&pid.to_string()).with_context(|| format!("process {pid} is gone"))?;
    let ticks: f64 = fields.iter().skip(UTIME).take(2).sum();
    #[expect(clippy::cast_precision_loss, reason = "a hundred, mostly")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(ticks / per_second)
}

/// Memory of a process, in MB (10^6 bytes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// `VmRSS`: now.
    pub(crate) resident: f64,
    /// `VmHWM`: the most so far.
    pub(crate) most: f64,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let field = |name: &str| {
        let kibibytes = text.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        let kibibytes: f64 = kibibytes.with_context(|| format!("no {name}"))?.trim().parse()?;
        Ok::<_, anyhow::Error>(kibibytes * 1024.0 / 1e6)
    };
    Ok(Memory { resident: field("VmRSS:")?, most: field("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn reads_its_own_process() {
        let pid = std::process::id();
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0.1 && memory.most >= memory.resident, "{memory:?}");
        let before = cpu_seconds(pid).unwrap();
        let begun = Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed().as_millis() < 200 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_seconds(pid).unwrap() > before);
        assert!(cpu_seconds(u32::MAX).is_err());
    }

    #[test]
    fn a_busy_stranger_is_noise() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let meter = Meter::start();
        thread::sleep(Duration::from_millis(500));
        let noise = meter.stop();
        busy.kill().unwrap();
        busy.wait().unwrap();
        // Beside other tests it gets a share of one CPU only.
        assert!(noise.others > 0.02 && noise.others <= 1.1, "{noise:?}");
        assert!((0.0..=1.0).contains(&noise.stolen), "{noise:?}");
    }
}
