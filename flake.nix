{
  description = "dojo: a household's finance ledger, and the image it is deployed as";

  # What is used of it CI has in `xtask/tests/nixpkgs-stand-in` too, to build this flake where nixpkgs cannot be had.
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

      # The files and folders of the project that `wanted` says yes to, by their path from its root.
      source =
        wanted:
        builtins.path {
          # The folder in which cargo builds has this name.
          name = "dojo-source";
          path = ./.;
          filter =
            path: _type:
            let
              below = builtins.stringLength (toString ./.) + 1;
            in
            wanted (builtins.substring below (builtins.stringLength path) path);
        };

      manifest =
        name:
        builtins.elem name [
          "Cargo.toml"
          "Cargo.lock"
          "dojo"
          "dojo/Cargo.toml"
          "xtask"
          "xtask/Cargo.toml"
        ];

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
      archives =
        if ready == "" then
          "${engine}/lib"
        else
          "${builtins.path {
            name = "dojo-engine-ready";
            path = ready;
          }}";

      # The same archives as a shared library: the image has the engine in a layer of its own, and dojo's stays small.
      # The whole of them, since what registers the core functions is named by nobody; only the C API is seen from
      # outside, so that the linker drops what it does not lead to.
      libduckdb = pkgs.runCommandCC "dojo-libduckdb" { } ''
        mkdir -p $out/lib
        echo '{ global: duckdb_*; local: *; };' > exported
        $CXX -shared -o $out/lib/libduckdb.so -Wl,-soname,libduckdb.so -Wl,-s \
          -Wl,--version-script,exported -Wl,--gc-sections -Wl,--whole-archive \
          ${archives}/libduckdb_static.a ${archives}/libduckdb_static_extension_autoregister.a \
          -Wl,--no-whole-archive
      '';

      # Equal for the crates and for dojo: where they differ, cargo compiles the crates again.
      common = {
        inherit (workspace) version;
        cargoLock.lockFile = ./Cargo.lock;
        buildNoDefaultFeatures = true;
        cargoBuildFlags = [
          "--package"
          "dojo"
        ];
        env.DUCKDB_LIB_DIR = "${libduckdb}/lib";
      };

      # Cargo resolves the whole workspace, and a member must have something to build.
      empty = member: ''
        mkdir -p ${member}/src
        echo 'fn main() {}' > ${member}/src/main.rs
      '';

      # Its manifest names benchmarks, which must be there too.
      emptyXtask = empty "xtask" + ''
        mkdir -p xtask/benches
        cp xtask/src/main.rs xtask/benches/image.rs
        cp xtask/src/main.rs xtask/benches/release.rs
      '';

      # Cargo's target folder with everything but our own crates, so that a source edit or a new commit compiles only
      # those. What is left of the empty ones must go: sources in the store are of 1970, and cargo would take the empty
      # service for newer than the real one.
      crates = pkgs.rustPlatform.buildRustPackage (
        common
        // {
          pname = "dojo-crates";
          src = source manifest;
          doCheck = false;
          preBuild = empty "dojo" + emptyXtask;
          installPhase = ''
            find target \( -name 'dojo*' -o -name 'libdojo*' -o -name release-tmp \) -prune -exec rm -r {} +
            mkdir $out
            mv target $out/
          '';
          dontFixup = true;
        }
      );

      service =
        { doCheck }:
        pkgs.rustPlatform.buildRustPackage (
          common
          // {
            pname = "dojo";
            inherit doCheck;
            src = source (
              name: manifest name || (builtins.substring 0 5 name == "dojo/" && name != "dojo/engine")
            );
            cargoTestFlags = common.cargoBuildFlags;
            env = common.env // {
              DOJO_COMMIT = revision;
            };
            # Cargo wants the artefacts newer than the crates' sources, which were unpacked a moment ago, and none newer
            # than those made from it. Whatever else is not as it was, it knows by hash, and compiles again.
            preBuild = emptyXtask + ''
              cp -r ${crates}/target .
              chmod -R u+w target
              touch now
              find target -exec touch -r now {} +
            '';
            meta.mainProgram = "dojo";
          }
        );

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
        inherit
          crates
          docker
          dojo
          engine
          libduckdb
          ;
        default = dojo;
      };

      checks.${system} = {
        inherit docker;
        tests = service { doCheck = true; };
      };

      # With the engine, so that `cargo` in here links the archives that the image is made from, and CI caches one copy.
      devShells.${system}.default = pkgs.mkShell {
        DUCKDB_STATIC = "1";
        DUCKDB_LIB_DIR = archives;
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
      };
    };
}
