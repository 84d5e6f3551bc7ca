//! The HTTP interface, as a client sees it.

use serde_json::{Value, json};

use crate::dojo::{Answer, Service, TOKEN, Volume, schema};

#[test]
fn money_goes_in_and_adds_up() {
    let volume = Volume::new();
    let service = volume.serve();
    let cash = service.post("/v1/accounts", &json!({"name": "Cash"}));
    assert_eq!(cash.status, 201);
    assert_eq!(
        cash.body,
        json!({"id": 1, "name": "Cash", "kind": "cash", "balance_minor": 0, "sequence": 1})
    );
    let bank = service.post("/v1/accounts", &json!({"name": "Bank", "kind": "checking"})).body["id"].clone();
    for (day, lines) in [
        ("2026-01-02", json!([{"account": bank, "amount_minor": 100_000}])),
        (
            "2026-01-03",
            json!([{"account": bank, "amount_minor": -2000}, {"account": 1, "amount_minor": 2000}]),
        ),
        ("2026-01-01", json!([{"account": 1, "amount_minor": -1234}])),
    ] {
        let body = json!({"day": day, "payee": "Ümlaut & Söhne", "memo": "x", "lines": lines});
        let answer = service.post("/v1/transactions", &body);
        assert_eq!((answer.status, &answer.body["version"]), (201, &json!(1)), "{answer:?}");
    }
    assert_eq!(balances(&service), [("Cash".into(), 766), ("Bank".into(), 98_000)]);

    let page = service.get("/v1/transactions?limit=2").body;
    assert_eq!(ids(&page), [5, 4]);
    assert_eq!((&page["sequence"], &page["next_before"]), (&json!(5), &json!(4)));
    let rest = service.get("/v1/transactions?limit=2&before=4").body;
    assert_eq!((ids(&rest), &rest["next_before"]), (vec![3], &Value::Null));

    let one = service.get("/v1/transactions/4").body;
    assert_eq!(
        one["lines"],
        json!([{"account": 2, "amount_minor": -2000}, {"account": 1, "amount_minor": 2000}])
    );
    assert_eq!((&one["day"], &one["payee"]), (&json!("2026-01-03"), &json!("Ümlaut & Söhne")));

    let voided = service.client().delete("/v1/transactions/4");
    assert_eq!(
        (voided.status, &voided.body["version"], &voided.body["sequence"]),
        (200, &json!(2), &json!(6))
    );
    assert_eq!(service.client().delete("/v1/transactions/4").body, voided.body);
    assert_eq!(balances(&service), [("Cash".into(), -1234), ("Bank".into(), 100_000)]);
    assert_eq!(ids(&service.get("/v1/transactions").body), [5, 3]);
    assert_eq!(service.get("/v1/transactions/4").body["voided"], true);

    let id = service.get("/version").body["ledger"]["id"].clone();
    assert_eq!(service.stop(), Some(0));
    let again = volume.serve();
    assert_eq!(again.get("/version").body["ledger"], json!({"id": id, "sequence": 6}));
    assert_eq!(balances(&again), [("Cash".into(), -1234), ("Bank".into(), 100_000)]);
}

#[test]
fn the_version_says_what_runs_on_what() {
    let volume = Volume::new();
    let service = volume.serve();
    let version = service.get("/version").body;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["environment"], "production");
    assert_eq!(
        (&version["schema"]["binary"], &version["schema"]["file"]),
        (&json!(schema()), &json!(schema()))
    );
    assert_eq!(version["ledger"]["id"].as_str().unwrap().len(), 36);
    assert!(version["commit"].is_string() && version["started_at"].as_str().unwrap().ends_with('Z'));
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(service.get(probe).status, 200);
    }
}

#[test]
fn every_error_is_a_problem() {
    let volume = Volume::new();
    let service = volume.serve();
    service.post("/v1/accounts", &json!({"name": "Cash"}));
    let line = |account: i64, amount: i64| json!({"account": account, "amount_minor": amount});
    let put = |lines: Value| json!({"day": "2026-01-01", "payee": "Shop", "lines": lines});

    service.get("/nowhere").is_problem(404, "nothing at this path");
    service.get("/v1/nowhere").is_problem(404, "nothing at this path");
    service.get("/v1/transactions/77").is_problem(404, "no transaction 77");
    service.get("/v1/transactions/x").is_problem(400, "x");
    service.get("/v1/transactions?limit=501").is_problem(400, "limit is 1 to 500");
    service.get("/v1/transactions?page=2").is_problem(400, "page");
    let wrong_method = service.client().delete("/v1/accounts");
    wrong_method.is_problem(405, "Allow");
    assert!(wrong_method.headers.contains_key("allow"));
    service.post("/healthz", &json!({})).is_problem(405, "Allow");

    service.post("/v1/accounts", &json!({"name": "cash"})).is_problem(409, "named");
    service.post("/v1/accounts", &json!({"name": " "})).is_problem(422, "1 to 200 characters");
    service.post("/v1/accounts", &json!({"name": "x", "kind": "gold"})).is_problem(422, "checking");
    service.post("/v1/accounts", &json!({"nmae": "x"})).is_problem(422, "nmae");
    service.post("/v1/transactions", &put(json!([]))).is_problem(422, "1 to 100 lines");
    service.post("/v1/transactions", &put(json!([line(9, 1)]))).is_problem(422, "no account 9");
    let most = put(json!([line(1, i64::MAX)]));
    assert_eq!(service.post("/v1/transactions", &most).status, 201);
    service.post("/v1/transactions", &put(json!([line(1, 1)]))).is_problem(422, "64 bits");
    assert_eq!(service.post("/v1/transactions", &put(json!([line(1, -5), line(1, 5)]))).status, 201);
    assert_eq!(service.sequence(), 3);

    raw(&service, "application/json", "{\"name\":").is_problem(400, "JSON");
    raw(&service, "text/plain", "{}").is_problem(415, "application/json");
    let long = json!({"name": "x".repeat(70_000)}).to_string();
    raw(&service, "application/json", &long).is_problem(413, "");
}

#[test]
fn v1_wants_a_token_and_probes_do_not() {
    let volume = Volume::new();
    let service = volume.serve();
    assert!(!service.log().contains(TOKEN));
    for (header, told) in [
        (None, "Authorization: Bearer TOKEN"),
        (Some("Basic YTpi".to_owned()), "Authorization: Bearer TOKEN"),
        (Some("Bearer wrong".to_owned()), "not in the token file"),
        (Some("Bearer # tests".to_owned()), "not in the token file"),
    ] {
        for path in ["/v1/accounts", "/v1/nowhere"] {
            let answer = as_header(&service, path, header.as_deref());
            answer.is_problem(401, told);
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    for path in ["/healthz", "/readyz", "/version"] {
        assert_eq!(as_header(&service, path, None).status, 200);
    }
    assert_eq!(as_header(&service, "/v1/accounts", Some(&format!("bearer {TOKEN}"))).status, 200);
}

#[test]
fn without_a_token_file_everybody_is_refused_and_told_how_to_set_one() {
    let volume = Volume::new();
    let mut command = volume.command(&["serve"]);
    command.env_remove("DOJO_TOKEN_FILE");
    let service = Service::start(command);
    as_header(&service, "/v1/accounts", Some("Bearer x")).is_problem(401, "set DOJO_TOKEN_FILE");
    assert!(service.log().contains("DOJO_TOKEN_FILE is not set"));
    drop(service);

    let mut command = volume.command(&["serve"]);
    command.env_remove("DOJO_TOKEN_FILE").env("DOJO_AUTH", "none");
    let service = Service::start(command);
    assert_eq!(as_header(&service, "/v1/accounts", None).status, 200);
    assert!(service.log().contains("everybody who reaches the port may read and write"));
}

fn balances(service: &Service) -> Vec<(String, i64)> {
    let accounts = service.get("/v1/accounts").body["accounts"].clone();
    let pair = |account: &Value| {
        (account["name"].as_str().unwrap().to_owned(), account["balance_minor"].as_i64().unwrap())
    };
    accounts.as_array().unwrap().iter().map(pair).collect()
}

fn ids(page: &Value) -> Vec<i64> {
    page["transactions"].as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()).collect()
}

fn raw(service: &Service, kind: &str, body: &str) -> Answer {
    let client = service.client();
    let request = client.agent.post(format!("{}/v1/accounts", client.base)).header("Content-Type", kind);
    Answer::from(request.header("Authorization", format!("Bearer {TOKEN}")).send(body).unwrap())
}

fn as_header(service: &Service, path: &str, authorization: Option<&str>) -> Answer {
    let client = service.client();
    let request = client.agent.get(format!("{}{path}", client.base));
    let request = match authorization {
        Some(value) => request.header("Authorization", value),
        None => request,
    };
    Answer::from(request.call().unwrap())
}
