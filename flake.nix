{
  description = "dojo: a household's finance ledger, and the image it is deployed as";

  # The newest stable release; the one before it has an older Rust than the workspace asks for.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      inherit (nixpkgs) lib;

      workspace = (lib.importTOML ./Cargo.toml).workspace.package;
      schema = lib.importTOML ./dojo/migrations/schema.toml;

      # The commit, so that the image and `/version` tell it. A tree with changes is no commit, and says that instead.
      revision = self.rev or self.dirtyRev or "dirty";

      # The commit's time, from 20260102030405 to RFC 3339.
      created =
        let
          at = from: length: builtins.substring from length self.lastModifiedDate;
        in
        "${at 0 4}-${at 4 2}-${at 6 2}T${at 8 2}:${at 10 2}:${at 12 2}Z";

      # What `cargo build --package dojo` reads, so that no edit elsewhere builds the service again.
      source = builtins.path {
        name = "dojo-source";
        path = ./.;
        filter =
          path: _type:
          let
            below = builtins.stringLength (toString ./.) + 1;
            name = builtins.substring below (builtins.stringLength path) path;
          in
          builtins.elem name [
            "Cargo.toml"
            "Cargo.lock"
            "xtask"
            "xtask/Cargo.toml"
          ]
          || name == "dojo"
          || (builtins.substring 0 5 name == "dojo/" && name != "dojo/engine");
      };

      # DuckDB's C++, twenty minutes of it, in a derivation that only its own lock file can change. nixpkgs has a
      # DuckDB too, but not the one that the duckdb crate's bindings are made for.
      engine = pkgs.rustPlatform.buildRustPackage {
        pname = "dojo-engine";
        inherit ((lib.importTOML ./dojo/engine/Cargo.toml).package) version;
        src = ./dojo/engine;
        cargoLock.lockFile = ./dojo/engine/Cargo.lock;
        doCheck = false;
        # They lie in the build folder of the crate that compiled them, whose name has a hash in it; linked against, the
        # first has the name that the crate asks for.
        postInstall = ''
          mkdir -p $out/lib
          made() { find "''${CARGO_TARGET_DIR:-target}" -path '*/build/libduckdb-sys-*/out/*' -name "$1" | head -n 1; }
          cp "$(made libduckdb.a)" $out/lib/libduckdb_static.a
          cp "$(made libduckdb_static_extension_autoregister.a)" $out/lib/
          test -s $out/lib/libduckdb_static.a
          test -s $out/lib/libduckdb_static_extension_autoregister.a
        '';
      };

      # `DUCKDB_LIB_DIR=… nix build --impure` links archives that this machine has compiled already. Without `--impure`
      # the variable reads as empty, so that no release depends on what a machine happens to have.
      ready = builtins.getEnv "DUCKDB_LIB_DIR";
      duckdb = {
        DUCKDB_STATIC = "1";
        DUCKDB_LIB_DIR =
          if ready == "" then
            "${engine}/lib"
          else
            "${builtins.path {
              name = "dojo-engine-ready";
              path = ready;
            }}";
      };

      service =
        { doCheck }:
        pkgs.rustPlatform.buildRustPackage {
          pname = "dojo";
          inherit (workspace) version;
          inherit doCheck;
          src = source;
          cargoLock.lockFile = ./Cargo.lock;
          buildNoDefaultFeatures = true;
          cargoBuildFlags = [
            "--package"
            "dojo"
          ];
          cargoTestFlags = [
            "--package"
            "dojo"
          ];
          env = duckdb // {
            DOJO_COMMIT = revision;
          };
          # Cargo resolves the whole workspace, and a member must have something to build.
          preBuild = ''
            mkdir -p xtask/src
            echo 'fn main() {}' > xtask/src/main.rs
          '';
          meta.mainProgram = "dojo";
        };

      dojo = service { doCheck = false; };

      docker = pkgs.dockerTools.buildLayeredImage {
        name = "dojo";
        tag = workspace.version;
        inherit created;
        # Whoever pushes it compresses each layer; packing and unpacking the whole once more only takes time.
        compressor = "none";
        # busybox is for `kubectl exec … sh`.
        contents = [
          pkgs.busybox
          dojo
        ];
        fakeRootCommands = ''
          mkdir -p app data tmp
          chown 1000:1000 app data tmp
        '';
        config = {
          Entrypoint = [ "/bin/dojo" ];
          Cmd = [ "serve" ];
          WorkingDir = "/app";
          User = "1000:1000";
          Env = [
            "DOJO_DB_PATH=/data/ledger.duckdb"
            "DOJO_ENV=production"
          ];
          ExposedPorts."8000/tcp" = { };
          # Read back by xtask: which commit this is, and which ledgers it can open.
          Labels = {
            "org.opencontainers.image.revision" = revision;
            "org.opencontainers.image.version" = workspace.version;
            "org.opencontainers.image.source" = workspace.repository;
            "org.opencontainers.image.created" = created;
            "dojo.schema" = toString schema.current;
            "dojo.schema.oldest-binary" = toString schema.oldest_binary;
          };
        };
      };
    in
    {
      packages.${system} = {
        inherit dojo docker engine;
        default = dojo;
      };

      checks.${system} = {
        inherit docker;
        tests = service { doCheck = true; };
      };

      # With the engine, so that `cargo` in here links the archive that the image has, and CI caches one copy of it.
      devShells.${system}.default = pkgs.mkShell (
        duckdb
        // {
          packages = with pkgs; [
            actionlint
            cargo
            clippy
            git
            just
            kubectl
            rust-analyzer
            rustc
            rustfmt
            skopeo
            zizmor
          ];
        }
      );
    };
}
