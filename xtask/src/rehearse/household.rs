//! A household that uses an environment's ledger, and remembers what it was told, so that a loss is seen.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::report::Observed;
use crate::service;

/// One environment's user.
#[derive(Debug)]
pub struct Household {
    url: String,
    agent: ureq::Agent,
    pub token: String,
    account: Option<Value>,
    /// Every transaction that was acknowledged: its id and amount.
    acknowledged: Vec<(Value, i64)>,
    ledger: Option<(String, u64)>,
}

impl Household {
    pub fn new(url: &str) -> Result<Self> {
        let mut bytes = [0; 24];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
        let token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(30))).proxy(None);
        Ok(Self {
            url: url.to_owned(),
            agent: config.build().into(),
            token,
            account: None,
            acknowledged: Vec::new(),
            ledger: None,
        })
    }

    /// Writes some transactions.
    pub fn spend(&mut self, count: i64) -> Result<()> {
        let account = match &self.account {
            Some(account) => account.clone(),
            None => {
                let created = self.send("/v1/accounts", &json!({ "name": "Checking" }))?;
                self.account.insert(created["id"].clone()).clone()
            }
        };
        for number in 0..count {
            let amount = -(100 * (number + 1));
            let body = json!({
                "day": "2026-01-31",
                "payee": format!("Shop {}", self.acknowledged.len() + 1),
                "lines": [{ "account": account, "amount_minor": amount }],
            });
            let created = self.send("/v1/transactions", &body)?;
            self.acknowledged.push((created["id"].clone(), amount));
        }
        Ok(())
    }

    /// Every acknowledged transaction is there, the balance is their sum, the ledger is the same, its sequence never back.
    pub fn check(&mut self) -> Result<String> {
        let Observed::Reports(report) = service::observe(&self.url) else {
            anyhow::bail!("{} is silent", self.url)
        };
        let ledger = report.version.ledger;
        if let Some((id, sequence)) = &self.ledger {
            ensure!(*id == ledger.id, "the ledger was {id}, now it is {}", ledger.id);
            ensure!(
                *sequence <= ledger.sequence,
                "the sequence was {sequence}, now it is {}",
                ledger.sequence
            );
        }
        for (id, amount) in &self.acknowledged {
            let path =
                format!("/v1/transactions/{}", id.as_str().map_or_else(|| id.to_string(), str::to_owned));
            let found = self.get(&path)?;
            ensure!(found["lines"][0]["amount_minor"] == *amount, "transaction {id} is {found}");
        }
        let accounts = self.get("/v1/accounts")?;
        let accounts = accounts["accounts"].as_array().context("no accounts in the answer")?;
        let balance: i64 = accounts.iter().filter_map(|account| account["balance_minor"].as_i64()).sum();
        let expected: i64 = self.acknowledged.iter().map(|(_, amount)| amount).sum();
        ensure!(balance == expected, "the balance is {balance}, the transactions sum up to {expected}");
        let told = format!(
            "all {} transactions are there, balance {balance}, ledger {}, sequence {}",
            self.acknowledged.len(),
            ledger.id.get(..8).unwrap_or(&ledger.id),
            ledger.sequence
        );
        self.ledger = Some((ledger.id, ledger.sequence));
        Ok(told)
    }

    /// The ledger starts from a backup of this sequence: what was written after it is gone. An account or a transaction is
    /// one sequence each. Returns how many transactions are lost.
    pub fn starts_from(&mut self, sequence: u64) -> usize {
        let kept =
            usize::try_from(sequence).unwrap_or_default().saturating_sub(usize::from(self.account.is_some()));
        let lost = self.acknowledged.len().saturating_sub(kept);
        self.acknowledged.truncate(kept);
        if let Some((_, known)) = &mut self.ledger {
            *known = sequence;
        }
        lost
    }

    pub fn summary(&self) -> Value {
        let (id, sequence) = self.ledger.clone().unzip();
        json!({ "id": id, "sequence": sequence, "transactions": self.acknowledged.len() })
    }

    fn send(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token));
        let mut answer = request.send_json(body).with_context(|| format!("POST {}{path}", self.url))?;
        Ok(answer.body_mut().read_json()?)
    }

    fn get(&self, path: &str) -> Result<Value> {
        let request = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token));
        let mut answer = request.call().with_context(|| format!("GET {}{path}", self.url))?;
        Ok(answer.body_mut().read_json()?)
    }
}
