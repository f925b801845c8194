use super::*;

fn told(arguments: &[&str]) -> String {
    let error = Cli::try_parse_from([&["larder"], arguments].concat())
        .err()
        .expect("a mistake");
    mistake(
        &error,
        arguments.iter().map(|argument| (*argument).to_owned()),
    )
    .unwrap()
}

fn refused(arguments: &[&str]) -> String {
    told(&[&["run"], arguments].concat())
}

#[test]
fn each_mistake_is_one_line_that_names_the_setting_as_make_does() {
    for (arguments, told) in [
        (
            ["--workers", "0"],
            "workers=0: must be a number from 1 to 512",
        ),
        (
            ["--workers", "two"],
            "workers=two: must be a number from 1 to 512",
        ),
        (
            ["--port", "0"],
            "port=0: a port is a number from 1 to 65535",
        ),
        (
            ["--port", "70000"],
            "port=70000: a port is a number from 1 to 65535",
        ),
        (["--port", ""], "port=: a port is a number from 1 to 65535"),
        (
            ["--health-path", "health"],
            "health_path=health: a path begins with /, as in /health",
        ),
        (
            ["--origins", "127.0.0.1"],
            "origins=127.0.0.1: \"127.0.0.1\" has no port: host:port",
        ),
        (
            ["--origins", "a:1,,b:2"],
            "origins=: \"\" has no port: host:port",
        ),
        (["--host", "a b"], "host=a b: \"a b\" is no host name"),
    ] {
        assert_eq!(refused(&arguments), told);
    }
    assert!(
        refused(&["--origins", "http://127.0.0.1:9001"]).contains("give host:port without http://")
    );
    assert!(refused(&["--bind", "localhost"]).starts_with("bind=localhost: must be an IP address"));
    for arguments in [["--config", ""], ["--prot", "1"]] {
        assert_eq!(refused(&arguments).lines().count(), 1);
    }
}

#[test]
fn spaces_after_commas_and_an_empty_health_path_are_understood() {
    let arguments = [
        "larder",
        "run",
        "--origins",
        "a:1, [::1]:2",
        "--health-path",
        "",
    ];
    let Ok(Cli {
        command: Verb::Run(run),
    }) = Cli::try_parse_from(arguments)
    else {
        panic!("refused")
    };
    assert_eq!(
        (run.origins, run.health_path),
        (vec!["a:1".to_owned(), "[::1]:2".to_owned()], String::new())
    );
}

#[test]
fn each_mistake_ends_with_the_way_out() {
    for (arguments, told_in_one_line) in [
        (
            ["run", "--prot=1"],
            "unexpected argument '--prot' found; a similar argument exists: '--port'",
        ),
        (
            ["purge", "--soft"],
            "were not provided: <--url <URL>|--tag <TAG>|--prefix <PREFIX>|--everything>",
        ),
        (["purge", "--soft"], "; see larder purge --help"),
        (
            ["filter", "--port=1"],
            "not provided: --config <CONFIG>; see larder filter --help",
        ),
        (
            ["--sidecar=http://a", "purge"],
            "unexpected argument '--sidecar' found; 'purge --sidecar' exists",
        ),
        (
            ["prge", "--soft"],
            "unrecognized subcommand 'prge'; a similar subcommand exists: 'purge'",
        ),
    ] {
        let line = told(&arguments);
        assert!(
            line.contains(told_in_one_line) && line.lines().count() == 1,
            "{line}"
        );
    }
}

#[test]
fn without_a_command_the_commands_are_listed() {
    let error = Cli::try_parse_from(["larder"]).err().expect("no command");
    assert_eq!(mistake(&error, std::iter::empty()), None);
    let help = error.to_string();
    for command in ["run", "filter", "render", "purge"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
}

#[test]
fn every_command_shows_an_example() {
    for command in Cli::command().get_subcommands() {
        let example = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            example.contains(&format!("  larder {} ", command.get_name())),
            "{}: {example}",
            command.get_name()
        );
    }
}

#[test]
fn a_snippet_needs_the_module_and_the_sidecar_and_takes_the_safe_configuration() {
    let given = [
        "larder",
        "render",
        "--snippet",
        "--wasm",
        "/a",
        "--sidecar",
        "b:1",
    ];
    let Ok(Cli {
        command: Verb::Render(render),
    }) = Cli::try_parse_from(given)
    else {
        panic!("refused")
    };
    assert_eq!(
        (&*render.config, &*render.name, &*render.cluster),
        ("envoy/filters/default.json", "larder", "larder-sidecar")
    );
    for (arguments, part) in [
        (&["--snippet", "--wasm", "/a"][..], "--sidecar <SIDECAR>"),
        (
            &[
                "--snippet",
                "--wasm",
                "/a",
                "--sidecar",
                "b:1",
                "--out",
                ".",
            ],
            "cannot be used with",
        ),
        (&["--wasm", "/a", "--sidecar", "b:1"], "--out <OUT>"),
        (
            &[
                "--snippet",
                "--name",
                "a b",
                "--wasm",
                "/a",
                "--sidecar",
                "b:1",
            ],
            "name=a b: must begin with",
        ),
    ] {
        let line = told(&[&["render"], arguments].concat());
        assert!(line.contains(part) && line.lines().count() == 1, "{line}");
    }
}
