//! The flags of OTP's `epmd`: one dash, read from left to right, the last word counts (epmd(1)).
//!
//! Three of its habits are not kept. A port above 65535 is refused, where there its upper bits are
//! dropped. `-names`, `-kill` and `-stop` need not come last. `-systemd` is refused: taking over a
//! descriptor by its number is not safe in Rust's sense.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::time::Duration;

use meshx_dist::epmd::PORT;
use meshx_epmd::daemon::PACKET_TIMEOUT;

/// What the words ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) action: Action,
    pub(crate) port: u16,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) relaxed_command_check: bool,
    pub(crate) detach: bool,
    /// How often `-d` was said.
    pub(crate) debug: u8,
    pub(crate) packet_timeout: Duration,
    pub(crate) delay_accept: Duration,
    pub(crate) delay_write: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Be the daemon.
    Serve,
    /// List the names of the running daemon.
    Names,
    /// Find out whether one runs, without a word.
    Started,
    /// List the names, old ones included.
    Dump,
    /// End it.
    Kill,
    /// Take a name from its holder.
    Stop(String),
}

impl Flags {
    /// Reads the words; `variable` gives the environment's `ERL_EPMD_…`. An error is a sentence.
    pub(crate) fn parse(
        words: &[OsString],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let mut flags = Self {
            action: Action::Serve,
            port: PORT,
            addresses: Vec::new(),
            // Set to anything, the empty text included, as OTP's does.
            relaxed_command_check: variable("ERL_EPMD_RELAXED_COMMAND_CHECK").is_some(),
            detach: false,
            debug: 0,
            packet_timeout: PACKET_TIMEOUT,
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
        };
        if let Some(value) = set("ERL_EPMD_PORT") {
            flags.port = port("ERL_EPMD_PORT", &value)?;
        }
        if let Some(value) = set("ERL_EPMD_ADDRESS") {
            flags.addresses = addresses("ERL_EPMD_ADDRESS", &value)?;
        }
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let shown = word.to_string_lossy();
            let mut value = || words.next().ok_or_else(|| format!("{shown} needs a value"));
            match &*shown {
                "-d" | "-debug" => flags.debug = flags.debug.saturating_add(1),
                "-daemon" => flags.detach = true,
                "-relaxed_command_check" => flags.relaxed_command_check = true,
                "-port" => flags.port = port("-port", value()?)?,
                "-address" => flags.addresses = addresses("-address", value()?)?,
                "-packet_timeout" => flags.packet_timeout = seconds("-packet_timeout", value()?)?,
                "-delay_accept" => flags.delay_accept = seconds("-delay_accept", value()?)?,
                "-delay_write" => flags.delay_write = seconds("-delay_write", value()?)?,
                "-names" => flags.act(Action::Names)?,
                "-started" => flags.act(Action::Started)?,
                "-dump" => flags.act(Action::Dump)?,
                "-kill" => flags.act(Action::Kill)?,
                "-stop" => {
                    let name = value()?.to_string_lossy().into_owned();
                    flags.act(Action::Stop(name))?;
                }
                "-systemd" => {
                    return Err("-systemd is not supported: let the service start the daemon \
                                without it, and without a .socket unit"
                        .to_owned());
                }
                _ => return Err(format!("{shown:?} is not a flag of epmd")),
            }
        }
        Ok(flags)
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        if self.action != Action::Serve {
            return Err("only one of -names, -kill and -stop at a time".to_owned());
        }
        self.action = action;
        Ok(())
    }
}

fn port(source: &str, value: &OsStr) -> Result<u16, String> {
    let port = value.to_str().and_then(|text| text.parse().ok()).filter(|&port| port != 0);
    port.ok_or_else(|| {
        format!("{source} is `{}`, which is not a port from 1 to 65535", value.display())
    })
}

fn seconds(source: &str, value: &OsStr) -> Result<Duration, String> {
    let seconds = value.to_str().and_then(|text| text.parse().ok()).filter(|&count| count > 0);
    let seconds: u32 = seconds.ok_or_else(|| {
        format!("{source} is `{}`, which is not a number of seconds", value.display())
    })?;
    Ok(Duration::from_secs(seconds.into()))
}

/// Addresses between commas or blanks.
fn addresses(source: &str, value: &OsStr) -> Result<Vec<IpAddr>, String> {
    let text = value.to_string_lossy();
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.parse().map_err(|_| format!("{source} has {word:?}, which is not an IP address"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(words: &str, environment: &[(&str, &str)]) -> Result<Flags, String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        Flags::parse(&words, |name| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn parse(words: &str) -> Result<Flags, String> {
        parse_with(words, &[])
    }

    #[test]
    fn says_nothing_and_serves() {
        let flags = parse("").unwrap();
        assert_eq!((&flags.action, flags.port, flags.debug), (&Action::Serve, 4369, 0));
        assert_eq!(flags.packet_timeout, Duration::from_mins(1));
        assert!(flags.addresses.is_empty() && !flags.detach && !flags.relaxed_command_check);
    }

    #[test]
    fn every_flag_of_the_manual() {
        let flags = parse(
            "-d -debug -port 5000 -address 192.0.2.1,fd00::1 -daemon -relaxed_command_check \
             -packet_timeout 5 -delay_accept 1 -delay_write 2",
        )
        .unwrap();
        let seconds = Duration::from_secs;
        let expected = Flags {
            action: Action::Serve,
            port: 5000,
            addresses: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            relaxed_command_check: true,
            detach: true,
            debug: 2,
            packet_timeout: seconds(5),
            delay_accept: seconds(1),
            delay_write: seconds(2),
        };
        assert_eq!(flags, expected);
        for (words, action) in [
            ("-port 5000 -names", Action::Names),
            ("-names -port 5000", Action::Names),
            ("-port 5000 -kill", Action::Kill),
            ("-port 5000 -stop shop", Action::Stop("shop".to_owned())),
            ("-port 5000 -started", Action::Started),
            ("-port 5000 -dump", Action::Dump),
        ] {
            let flags = parse(words).unwrap();
            assert_eq!((flags.action, flags.port), (action, 5000), "{words}");
        }
    }

    #[test]
    fn flags_go_before_the_environment() {
        let environment = [
            ("ERL_EPMD_PORT", "5001"),
            ("ERL_EPMD_ADDRESS", "192.0.2.1 , 192.0.2.2"),
            ("ERL_EPMD_RELAXED_COMMAND_CHECK", ""),
        ];
        let flags = parse_with("", &environment).unwrap();
        assert_eq!((flags.port, flags.addresses.len()), (5001, 2));
        assert!(flags.relaxed_command_check);
        let flags = parse_with("-port 5002 -address ::1", &environment).unwrap();
        assert_eq!((flags.port, flags.addresses.len()), (5002, 1));
        assert_eq!(parse_with("", &[("ERL_EPMD_PORT", "")]).unwrap().port, 4369);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, said) in [
            ("-port", "-port needs a value"),
            ("-port 0", "-port"),
            ("-port 70000", "70000"),
            ("-port abc -names", "abc"),
            ("-packet_timeout 0", "-packet_timeout"),
            ("-address localhost", "localhost"),
            ("-stop", "-stop needs a value"),
            ("-names -kill", "only one"),
            ("-systemd", "not supported"),
            ("--names", "--names"),
            ("-help", "-help"),
            ("names", "names"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(said), "{words}: {error}");
        }
        assert!(parse_with("", &[("ERL_EPMD_PORT", "x")]).unwrap_err().contains("ERL_EPMD_PORT"));
    }
}
