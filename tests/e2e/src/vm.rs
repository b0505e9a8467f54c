//! A stock Erlang VM that evaluates what the test asks.

use std::fmt::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Mesh, Process};

/// How long a VM may take to boot.
const BOOT: Duration = Duration::from_secs(30);

/// How long an expression may take.
const EVALUATION: Duration = Duration::from_secs(30);

/// What the VM runs: it reads expressions line by line and prints each one's value.
pub(crate) const DRIVER: &str = r#"
spawn(fun() ->
  io:format(user, "~n@@ ready ~s~n", [os:getpid()]),
  Loop = fun Loop(Bindings) ->
    %% A binary once Elixir runs.
    case case io:get_line(user, "") of L when is_binary(L) -> binary_to_list(L); L -> L end of
      "@forget" ++ _ ->
        io:format(user, "~n@@ ok forgotten~n", []),
        Loop(erl_eval:new_bindings());
      Line when is_list(Line) ->
        Loop(try
          {ok, Tokens, _} = erl_scan:string(Line),
          {ok, Expressions} = erl_parse:parse_exprs(Tokens),
          {value, Value, Next} = erl_eval:exprs(Expressions, Bindings),
          io:format(user, "~n@@ ok ~0tp~n", [Value]),
          Next
        catch Class:Reason ->
          io:format(user, "~n@@ raised ~0tp ~0tp~n", [Class, Reason]),
          Bindings
        end);
      eof -> erlang:halt(0);
      _ -> ok
    end
  end,
  Loop(erl_eval:new_bindings())
end)."#;

/// An atom as Erlang prints it: quoted only where that is needed.
pub fn atom(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@');
    if is_plain { name.to_owned() } else { format!("'{name}'") }
}

/// How a VM is to be started.
#[derive(Debug)]
pub struct VmBuilder<'a> {
    mesh: &'a Mesh,
    exec: Vec<String>,
    erl: Vec<String>,
    program: Vec<String>,
    environment: Vec<(String, String)>,
    title: String,
}

impl<'a> VmBuilder<'a> {
    pub(crate) fn new(mesh: &'a Mesh, name: &str) -> Self {
        let exec = match name {
            "" => Vec::new(),
            name => vec!["--name".to_owned(), name.to_owned()],
        };
        Self {
            mesh,
            exec,
            erl: Vec::new(),
            program: vec!["erl".to_owned()],
            environment: Vec::new(),
            title: name.to_owned(),
        }
    }

    /// More arguments of `meshx exec`.
    #[must_use]
    pub fn exec(mut self, arguments: &[&str]) -> Self {
        self.exec.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// More arguments of `erl`.
    #[must_use]
    pub fn erl(mut self, arguments: &[&str]) -> Self {
        self.erl.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Another program in the place of `erl`.
    #[must_use]
    pub fn program(mut self, program: &[&str]) -> Self {
        self.program = program.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// A variable for `meshx exec` and the VM.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, without waiting for the VM.
    pub fn spawn(&self) -> Process {
        let mut command = self.mesh.command(&["exec"]);
        command.args(&self.exec).arg("--").args(&self.program).args(&self.erl);
        command.args(["-noshell", "-eval", DRIVER]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(&format!("meshx exec {}", self.title), &mut command)
    }

    /// Starts it and waits until the VM reads expressions.
    pub fn start(&self) -> Vm {
        Vm::attach(self.spawn())
    }
}

/// A VM that evaluates expressions: under `meshx exec`, or a [`PlainVm`](crate::PlainVm).
#[derive(Debug)]
pub struct Vm {
    process: Process,
    pid: u32,
    output: String,
}

impl Vm {
    pub(crate) fn attach(process: Process) -> Self {
        let mut vm = Self { process, pid: 0, output: String::new() };
        let ready = vm.answer("ready ", BOOT);
        vm.pid = ready.trim().parse().unwrap();
        vm
    }

    /// The VM's own process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process that was started: of `meshx exec`, or of a plain VM.
    pub fn wrapper(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What the VM, and `meshx exec` around it, wrote on stderr so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// What the VM printed besides its answers, such as reports of its logger.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The value of an expression, on one line, as `~p` prints it.
    pub fn eval(&mut self, expression: &str) -> String {
        self.try_eval(expression).unwrap_or_else(|raised| {
            panic!("{expression} raised {raised}\n{}\n{}", self.output, self.stderr())
        })
    }

    /// The value of an expression, or class and reason of what it raised.
    pub fn try_eval(&mut self, expression: &str) -> Result<String, String> {
        self.try_eval_within(expression, EVALUATION)
    }

    /// As [`Vm::try_eval`], where the answer must come within a time (otherwise 30 s).
    pub fn try_eval_within(
        &mut self,
        expression: &str,
        within: Duration,
    ) -> Result<String, String> {
        let line = expression.split_whitespace().collect::<Vec<_>>().join(" ");
        let dot = if line.ends_with('.') { "" } else { "." };
        self.process.write(&format!("{line}{dot}\n"));
        let answer = self.answer("", within);
        match answer.split_once(' ') {
            Some(("ok", value)) => Ok(value.to_owned()),
            Some(("raised", raised)) => Err(raised.to_owned()),
            _ => panic!("not an answer: {answer}"),
        }
    }

    /// Unbinds all variables.
    pub fn forget(&mut self) {
        self.process.write("@forget\n");
        self.answer("ok forgotten", EVALUATION);
    }

    /// Evaluates until the value is the expected one, and returns how long that took.
    pub fn await_eval(&mut self, expression: &str, expected: &str, within: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let value = self.try_eval(expression);
            if value.as_deref() == Ok(expected) {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < within,
                "{expression} is {value:?}, not {expected}, after {within:?}\n{}\n{}",
                self.output,
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Connects to another node; the answer of `net_kernel:connect_node/1`.
    pub fn connect(&mut self, node: &str) -> String {
        self.eval(&format!("net_kernel:connect_node('{node}')"))
    }

    /// The visible nodes, sorted.
    pub fn nodes(&mut self) -> String {
        self.eval("lists:sort(nodes())")
    }

    /// Ends the VM by `init:stop/1` and returns the exit status of `meshx exec`.
    pub fn stop(mut self, status: u8) -> Option<i32> {
        self.process.write(&format!("init:stop({status}).\n"));
        self.process.wait(Duration::from_secs(20)).code()
    }

    /// The next line of stdout that starts with `@@ ` and `prefix`, without them.
    fn answer(&mut self, prefix: &str, within: Duration) -> String {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(line) = self.process.next_line(left) else {
                panic!("the VM is gone\n{}\n{}", self.output, self.stderr());
            };
            if let Some(answer) =
                line.strip_prefix("@@ ").and_then(|rest| rest.strip_prefix(prefix))
            {
                return answer.to_owned();
            }
            if !line.is_empty() {
                writeln!(self.output, "{line}").unwrap();
            }
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // At the end of its input the VM halts, and `meshx exec` with it.
        self.process.close_stdin();
        let start = Instant::now();
        while self.process.is_running() && start.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.process.is_running()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            let _ignored = kill_process(pid, Signal::KILL);
        }
    }
}
