//! The examples of `meshx-node`, as their first lines say.

use std::process::Command;
use std::time::Duration;

use meshx_e2e::{Home, PlainVm, Process, Release, example};
use rustix::process::Signal;

use crate::{COOKIE, LIMIT, Stock};

/// An example beside a VM, with a cookie file and arguments behind.
pub(crate) struct Example {
    process: Process,
    _home: Home,
}

impl Example {
    pub(crate) fn start(stock: &Stock, name: &str, arguments: &[&str]) -> Self {
        let home = Home::make();
        let cookie = home.path().join("cookie");
        // An editor adds the newline.
        std::fs::write(&cookie, format!("{COOKIE}\n")).unwrap();
        let mut command = Command::new(example(name));
        command.arg("rust@127.0.0.1").arg(cookie).args(arguments);
        command.env("ERL_EPMD_PORT", stock.epmd.port().to_string());
        Self { process: Process::start(name, &mut command), _home: home }
    }

    pub(crate) fn line(&self) -> String {
        self.process.next_line(LIMIT).unwrap_or_else(|| panic!("{}", self.process.stderr()))
    }

    /// By Ctrl-C.
    pub(crate) fn end(mut self) {
        self.process.signal(Signal::INT);
        assert_eq!(self.process.wait(LIMIT).code(), Some(0), "{}", self.process.stderr());
    }
}

#[test]
fn echo() {
    let mut stock = Stock::start(Release::Machine, "a");
    let echo = Example::start(&stock, "echo", &[]);
    assert_eq!(echo.line(), "rust@127.0.0.1 echoes");
    stock.vm.eval("E = {echo, 'rust@127.0.0.1'}");
    stock.vm.eval("E ! {self(), {hello, #{any => [term, 1.5, <<1:3>>]}}}");
    let back = "receive M -> M after 5000 -> none end";
    assert_eq!(stock.vm.eval(back), "{hello,#{any => [term,1.5,<<1:3>>]}}");
    stock.vm.eval("E ! nonsense");
    stock.vm.forget();
    stock.vm.eval("{echo, 'rust@127.0.0.1'} ! {self(), 2}");
    assert_eq!(stock.vm.eval(back), "2");
    echo.end();
}

#[test]
fn counter() {
    let mut stock = Stock::start(Release::Machine, "a");
    let counter = Example::start(&stock, "counter", &[]);
    assert_eq!(counter.line(), "rust@127.0.0.1 counts");
    for (expression, expected) in [
        ("gen_server:call({counter, 'rust@127.0.0.1'}, next)", "1"),
        ("gen_server:cast({counter, 'rust@127.0.0.1'}, {add, 10})", "ok"),
        ("gen_server:call({counter, 'rust@127.0.0.1'}, {add, 3})", "14"),
        ("sys:get_state({counter, 'rust@127.0.0.1'})", "#{count => 14}"),
        ("gen_server:call({counter, 'rust@127.0.0.1'}, {slowly, 50})", "15"),
    ] {
        assert_eq!(stock.vm.eval(expression), expected, "{expression}");
    }
    counter.end();
}

#[test]
fn rpc() {
    let stock = Stock::start(Release::Machine, "a");
    let mut rpc = Example::start(&stock, "rpc", &[&stock.name]);
    for expected in [
        "node: a@127.0.0.1",
        "sum: 10",
        "release: \"",
        "hd([]): the function raised badarg",
        "exit(bye): the function exited: bye",
        "no_such:function(): the function raised undef in no_such:function/0",
        "timer:sleep(60000): no result within 100ms",
    ] {
        let line = rpc.line();
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(rpc.process.wait(LIMIT).code(), Some(0));
}

#[test]
fn watch() {
    let mut stock = Stock::start(Release::Machine, "a");
    let watch = Example::start(&stock, "watch", &[&stock.name]);
    let end_all = "[exit(P, oops) || P <- processes(), process_info(P, current_function)
         =:= {current_function, {timer, sleep, 1}}]";
    for _ in 0..2 {
        assert!(watch.line().starts_with("started <"));
        // It may not sleep yet.
        stock.vm.await_eval(&format!("length({end_all})"), "1", LIMIT);
        assert!(watch.line().starts_with("ended: oops; again in "));
    }
    assert!(watch.line().starts_with("started <"));
    // The same node, another run.
    stock.vm.signal(Signal::KILL);
    assert!(watch.line().starts_with("ended: noconnection; again in "));
    assert!(watch.line().starts_with("not started: "));
    stock.vm = PlainVm::start(Release::Machine, &stock.name, COOKIE, stock.epmd.port());
    while !watch.line().starts_with("started <") {}
    stock.vm.await_eval(&format!("length({end_all})"), "1", LIMIT);
    assert!(watch.line().starts_with("ended: oops; again in "));
    watch.end();
}

#[test]
fn examples_say_what_is_wrong() {
    let stock = Stock::start(Release::Machine, "a");
    for name in ["echo", "counter", "rpc", "watch"] {
        let mut command = Command::new(example(name));
        let mut process = Process::start(name, &mut command);
        assert_eq!(process.wait(LIMIT).code(), Some(1));
        process.await_stderr(&format!("{name}: usage: {name} NAME COOKIE_FILE"), LIMIT);
    }
    let mut command = Command::new(example("echo"));
    command.args(["rust@127.0.0.1", "/nonexistent/cookie"]);
    let mut process = Process::start("echo", &mut command);
    assert_eq!(process.wait(Duration::from_secs(5)).code(), Some(1));
    process.await_stderr("echo: /nonexistent/cookie: No such file", LIMIT);
    // The name of the VM itself.
    let home = Home::make();
    let cookie = home.path().join("cookie");
    std::fs::write(&cookie, COOKIE).unwrap();
    let mut command = Command::new(example("echo"));
    command.arg(&stock.name).arg(&cookie);
    command.env("ERL_EPMD_PORT", stock.epmd.port().to_string());
    let mut process = Process::start("echo", &mut command);
    assert_eq!(process.wait(LIMIT).code(), Some(1));
    let said = process.await_stderr("echo: ", LIMIT);
    assert!(said.contains("a@127.0.0.1"), "{said}");
}
