-- oldest_binary: 1
-- Facts are only appended: a row is never updated or deleted, and no table has a secondary or UNIQUE index.
-- `seq` is one sequence for the whole ledger, so a lost tail or a gap shows.

CREATE TABLE account (
    seq         BIGINT    NOT NULL,
    account_id  BIGINT    NOT NULL,
    name        VARCHAR   NOT NULL,
    kind        VARCHAR   NOT NULL,
    actor       VARCHAR   NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);

-- The current state of a transaction is its highest version; action is 'put' or 'void'.
CREATE TABLE txn_version (
    seq         BIGINT    NOT NULL,
    txn_id      BIGINT    NOT NULL,
    version     INTEGER   NOT NULL,
    action      VARCHAR   NOT NULL,
    day         DATE      NOT NULL,
    payee       VARCHAR   NOT NULL,
    memo        VARCHAR,
    actor       VARCHAR   NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);

-- The lines of the transaction version with the same seq, in minor units.
CREATE TABLE line (
    seq          BIGINT  NOT NULL,
    line_no      INTEGER NOT NULL,
    account_id   BIGINT  NOT NULL,
    amount_minor BIGINT  NOT NULL
);
