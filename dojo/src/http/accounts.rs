//! `/v1/accounts`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;

use super::App;
use super::auth::Actor;
use super::error::Problem;
use crate::ledger::{Account, NewAccount, store};

#[derive(Serialize)]
pub struct Accounts {
    accounts: Vec<Account>,
    /// The sequence number that the list stands for.
    sequence: i64,
}

pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Accounts>, Problem> {
    let read = app
        .db
        .read(|conn| Ok(Accounts { accounts: store::accounts(conn)?, sequence: store::sequence(conn)? }));
    Ok(Json(read.await?))
}

pub async fn add(
    State(app): State<Arc<App>>,
    Extension(Actor(actor)): Extension<Actor>,
    Json(new): Json<NewAccount>,
) -> Result<(StatusCode, Json<store::Added>), Problem> {
    let added = app.db.write(move |draft| store::add_account(draft, &new, actor)).await?;
    Ok((StatusCode::CREATED, Json(added)))
}
