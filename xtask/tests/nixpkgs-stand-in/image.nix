# dockerTools.buildLayeredImage; the folders of `contents` are linked into the image's root.
build:
{
  name,
  tag,
  created,
  compressor,
  contents,
  fakeRootCommands,
  config,
}:
assert compressor == "none";
build {
  name = "docker-image-${name}.tar";
  inherit
    tag
    created
    contents
    fakeRootCommands
    ;
  repository = name;
  config = builtins.toJSON config;
  # Nix writes what each of them refers to, itself included, into a file.
  exportReferencesGraph = builtins.concatLists (
    builtins.genList (n: [
      "closure-${toString n}"
      (builtins.elemAt contents n)
    ]) (builtins.length contents)
  );
  script = "python3 ${./image.py}";
}
