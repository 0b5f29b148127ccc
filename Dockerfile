# The executor's own images:
#   executor (the default)  from scratch: /kaniko/executor, certificates, /kaniko/.docker
#   debug                   the same with busybox, for CI jobs that need a shell
ARG GO_IMAGE=golang:1.26-bookworm
ARG BUSYBOX_IMAGE=busybox:musl

FROM ${BUSYBOX_IMAGE} AS busybox

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY pkg pkg
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o /out/kaniko/executor ./cmd/executor
RUN mkdir -p /out/kaniko/.docker /out/kaniko/ssl/certs /out/etc \
 && cp /etc/ssl/certs/ca-certificates.crt /out/kaniko/ssl/certs/ca-certificates.crt \
 && echo 'hosts: files dns' > /out/etc/nsswitch.conf \
 && chmod 0777 /out/kaniko

FROM scratch AS base
COPY --from=build /out/ /
ENV HOME=/root \
    USER=root \
    PATH=/usr/local/bin:/kaniko \
    SSL_CERT_DIR=/kaniko/ssl/certs \
    DOCKER_CONFIG=/kaniko/.docker/
WORKDIR /workspace
ENTRYPOINT ["/kaniko/executor"]

FROM base AS debug
COPY --from=busybox /bin /busybox
ENV PATH=/usr/local/bin:/kaniko:/busybox
RUN ["/busybox/mkdir", "-p", "/bin"]
RUN ["/busybox/ln", "-s", "/busybox/sh", "/bin/sh"]

FROM base AS executor
