# The sidecar with its embedded model; nothing is downloaded when it starts.
#   docker build -t rerank-sidecar .
# To convert Hugging Face cross-encoders inside the container, which brings torch along:
#   docker build --build-arg EXTRAS=server,disk-cache,convert -t rerank-sidecar:convert .
FROM python:3.11-slim AS build
ARG EXTRAS=server,disk-cache
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
COPY adapters adapters
RUN python -m venv /opt/rerank-sidecar && \
    /opt/rerank-sidecar/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 sidecar && \
    install --directory --owner=sidecar /home/sidecar/.cache
COPY --from=build /opt/rerank-sidecar /opt/rerank-sidecar
ENV PATH=/opt/rerank-sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RERANK_SIDECAR_HOST=0.0.0.0 \
    RERANK_SIDECAR_LOG_FORMAT=json \
    MALLOC_ARENA_MAX=2
USER 10001
VOLUME /home/sidecar/.cache
EXPOSE 8080 50051
HEALTHCHECK --interval=5s --timeout=5s --retries=24 CMD ["rerank-sidecar", "probe"]
ENTRYPOINT ["rerank-sidecar"]
CMD ["serve"]
