# The phases of a build, as shell functions; what is named here in lower case comes from packages.nix.
# shellcheck shell=bash

# Times are kept, as stdenv does: all that comes from the store is of 1970.
unpack() {
    cp -pr "$src" "${src#*-}"
    chmod -R u+w "${src#*-}"
    cd "${src#*-}"
    cmp "$lockFile" Cargo.lock
}

target=x86_64-unknown-linux-gnu

build_with_cargo() {
    eval "$preBuild"
    # shellcheck disable=SC2086
    cargo build --frozen --release --target $target -j "$NIX_BUILD_CORES" $cargoFlags
}

check_with_cargo() {
    # shellcheck disable=SC2086
    cargo test --frozen --release --target $target -j "$NIX_BUILD_CORES" $checkFlags
}

install_programs() {
    mkdir -p "$out/bin"
    find target/$target/release -maxdepth 1 -type f -executable -exec install -t "$out/bin" {} +
}

# The loader and libraries of the store for all that was linked with this machine's.
fix_up() {
    find "$out" -type f -perm /111 | while read -r file; do
        needed=$(patchelf --print-needed "$file" 2>/dev/null) || continue
        [[ $needed == *libc.so* ]] || continue
        if patchelf --print-interpreter "$file" >/dev/null 2>&1; then
            patchelf --set-interpreter "$glibc/lib/ld-linux-x86-64.so.2" "$file"
        fi
        patchelf --add-rpath "$glibc/lib:$libstdcxx/lib" "$file"
        patchelf --shrink-rpath "$file"
    done
}
