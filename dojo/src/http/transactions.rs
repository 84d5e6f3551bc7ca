//! `/v1/transactions`: put, listed newest first, and voided as a new version.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::App;
use super::auth::Actor;
use super::error::Problem;
use crate::ledger::{NewTransaction, Transaction, store};

const PAGE: usize = 50;
/// A larger limit is refused, not cut, so that nobody takes a page for the whole.
const LARGEST_PAGE: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    limit: Option<usize>,
    /// Only transactions whose newest version has a lower sequence number.
    before: Option<i64>,
}

#[derive(Serialize)]
pub struct Transactions {
    transactions: Vec<Transaction>,
    sequence: i64,
    /// What `before` is for the next page; null on the last one.
    next_before: Option<i64>,
}

pub async fn list(
    State(app): State<Arc<App>>,
    Query(page): Query<Page>,
) -> Result<Json<Transactions>, Problem> {
    let limit = page.limit.unwrap_or(PAGE);
    if limit == 0 || limit > LARGEST_PAGE {
        let detail = format!("limit is 1 to {LARGEST_PAGE}; use before={{next_before}} for more");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    let read = app.db.read(move |conn| {
        let mut transactions = store::transactions(conn, page.before, limit + 1)?;
        let more = transactions.len() > limit;
        transactions.truncate(limit);
        let next_before = transactions.last().filter(|_| more).map(|last| last.sequence);
        Ok(Transactions { transactions, sequence: store::sequence(conn)?, next_before })
    });
    Ok(Json(read.await?))
}

pub async fn get(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Result<Json<Transaction>, Problem> {
    Ok(Json(app.db.read(move |conn| store::transaction(conn, id)).await?))
}

pub async fn add(
    State(app): State<Arc<App>>,
    Extension(Actor(actor)): Extension<Actor>,
    Json(new): Json<NewTransaction>,
) -> Result<(StatusCode, Json<Transaction>), Problem> {
    let added = app.db.write(move |draft| store::add_transaction(draft, &new, actor)).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

pub async fn void(
    State(app): State<Arc<App>>,
    Extension(Actor(actor)): Extension<Actor>,
    Path(id): Path<i64>,
) -> Result<Json<Transaction>, Problem> {
    Ok(Json(app.db.write(move |draft| store::void_transaction(draft, id, actor)).await?))
}
