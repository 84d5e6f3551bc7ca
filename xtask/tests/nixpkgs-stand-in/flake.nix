{
  description = "Not nixpkgs: the few attributes of it that the project's flake uses, from this machine's programs";

  outputs = _: {
    lib.importTOML = path: builtins.fromTOML (builtins.readFile path);
    legacyPackages.x86_64-linux = import ./packages.nix;
  };
}
