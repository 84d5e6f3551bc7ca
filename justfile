# Short names only: what they do is in `cargo xtask`, which needs no just.

[private]
default:
    @just --list --unsorted

# A release, its promotions and a rollback, all real, in one folder
rehearse *args:
    cargo xtask rehearse {{ args }}

# Everything that must pass before a push
ci *args:
    cargo xtask ci {{ args }}

# The tests alone
test:
    cargo xtask ci test

# The tests with many more `kill -9` of the service under writes, interrupts of the rehearsal, faults of the registry and of releases, and promotions at once
soak kills="200":
    DOJO_KILLS={{ kills }} DOJO_INTERRUPTS=20 DOJO_FAULTS=100 cargo xtask ci test

# What a push costs by skopeo and by xtask, in turns: time, memory, bytes. Needs skopeo and docker-registry
bench-image *args:
    cargo bench --quiet --package xtask --bench image --profile dev -- {{ args }}

# What a release's plan costs in 20,000 commits, by release-plz (if there is one) and by xtask, in turns
bench-release *args:
    cargo bench --quiet --package xtask --bench release --profile dev -- {{ args }}

# The rendered manifests of every environment against the rules
check:
    cargo xtask check

fmt:
    cargo fmt --all

# Which tools, logins and remotes there are, and what each is for
doctor:
    cargo xtask doctor

# What runs where
status:
    cargo xtask status

# The pipeline as a page for a browser
board file="target/board.html":
    cargo xtask board --out {{ file }}

# The pictures in docs/screenshots, by Chromium
screenshots:
    DOJO_REQUIRE_TOOLS=1 DOJO_SCREENSHOTS={{ justfile_directory() }}/docs/screenshots cargo test --package xtask --test board

# The image that is deployed, by nix
image:
    nix build .#docker
