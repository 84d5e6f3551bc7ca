let
  # The programs of the machine. Without `--impure` these are empty: the flake can be evaluated, and nothing be built.
  machine = {
    PATH = builtins.getEnv "PATH";
    HOME = builtins.getEnv "HOME";
    CARGO_HOME = builtins.getEnv "CARGO_HOME";
    RUSTUP_HOME = builtins.getEnv "RUSTUP_HOME";
  };

  # A derivation that sources build.sh, then runs `script`.
  build =
    attributes:
    derivation (
      machine
      // {
        system = "x86_64-linux";
        builder = "/bin/bash";
        args = [
          "-euo"
          "pipefail"
          "-c"
          "source ${./build.sh}; ${attributes.script}"
        ];
      }
      // removeAttrs attributes [ "script" ]
    );

  folder = "/lib/x86_64-linux-gnu";
  libraries =
    name: files:
    build {
      inherit name;
      script = "mkdir -p $out/lib; for file in ${toString files}; do cp -L ${folder}/$file $out/lib/; done";
    };
  glibc = libraries "glibc" [
    "ld-linux-x86-64.so.2"
    "libc.so.6"
    "libm.so.6"
  ];
  libstdcxx = libraries "gcc-lib" [
    "libgcc_s.so.1"
    "libstdc++.so.6"
  ];
  # What the fixing up needs, so that the result refers to it.
  loaded = { inherit glibc libstdcxx; };

  program =
    name:
    build {
      inherit name;
      script = "mkdir $out";
    };
in
{
  busybox = build {
    name = "busybox";
    script = ''
      mkdir -p $out/bin
      cp "$(command -v busybox)" $out/bin/busybox
      $out/bin/busybox --list | while read -r applet; do
        [ -e $out/bin/$applet ] || ln -s busybox $out/bin/$applet
      done
    '';
  };

  runCommandCC =
    name: env: script:
    build (
      env
      // loaded
      // {
        inherit name;
        CXX = "g++";
        script = "${script}\nfix_up";
      }
    );

  rustPlatform.buildRustPackage =
    {
      pname,
      version,
      src,
      cargoLock,
      buildNoDefaultFeatures ? false,
      cargoBuildFlags ? [ ],
      cargoTestFlags ? [ ],
      doCheck ? true,
      dontFixup ? false,
      preBuild ? "",
      installPhase ? "install_programs",
      postInstall ? "",
      env ? { },
      meta ? { },
    }:
    build (
      env
      // loaded
      // {
        name = "${pname}-${version}";
        inherit
          src
          preBuild
          installPhase
          postInstall
          ;
        inherit (cargoLock) lockFile;
        cargoFlags =
          (if buildNoDefaultFeatures then "--no-default-features " else "") + toString cargoBuildFlags;
        checkFlags =
          (if buildNoDefaultFeatures then "--no-default-features " else "") + toString cargoTestFlags;
        script = ''
          unpack
          build_with_cargo
          ${if doCheck then "check_with_cargo" else ""}
          eval "$installPhase"
          eval "$postInstall"
          ${if dontFixup then "" else "fix_up"}
        '';
      }
    )
    // {
      inherit meta;
    };

  dockerTools.buildLayeredImage = import ./image.nix build;

  # Nothing of it is ever started; that the names are written here is all.
  mkShell =
    attributes:
    build (
      attributes
      // {
        name = "shell";
        script = "mkdir $out";
      }
    );
}
// builtins.listToAttrs (
  map
    (name: {
      inherit name;
      value = program name;
    })
    [
      "actionlint"
      "cargo"
      "clippy"
      "git"
      "just"
      "kubectl"
      "rust-analyzer"
      "rustc"
      "rustfmt"
      "skopeo"
      "zizmor"
    ]
)
