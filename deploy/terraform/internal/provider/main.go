// Command provider is a provider for Terraform that has the schemas of the AWS provider and nothing else: enough for init,
// validate and tests with mock_provider, where the real one cannot be had. It promises never to reach AWS: whatever is not
// about schemas is refused.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/shortline/shortline/deploy/terraform/internal/schema"
)

func main() {
	p, err := newProvider()
	if err == nil {
		err = tf5server.Serve("registry.terraform.io/hashicorp/aws", func() tfprotov5.ProviderServer { return p })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

// provider answers what is about schemas; the other methods of the interface are nil, and Terraform has no reason to call them for
// validate and for mocks.
type provider struct {
	tfprotov5.ProviderServer
	schemas tfprotov5.GetProviderSchemaResponse
}

func newProvider() (*provider, error) {
	f, err := schema.Read()
	if err != nil {
		return nil, err
	}
	p := &provider{schemas: tfprotov5.GetProviderSchemaResponse{
		ServerCapabilities: &tfprotov5.ServerCapabilities{GetProviderSchemaOptional: true},
		ResourceSchemas:    map[string]*tfprotov5.Schema{}, DataSourceSchemas: map[string]*tfprotov5.Schema{},
	}}
	if p.schemas.Provider, err = convert(f.Config); err != nil {
		return nil, err
	}
	for from, to := range map[*map[string]*schema.Block]map[string]*tfprotov5.Schema{&f.Resource: p.schemas.ResourceSchemas, &f.Data: p.schemas.DataSourceSchemas} {
		for name, b := range *from {
			if to[name], err = convert(b); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return p, nil
}

func convert(b *schema.Block) (*tfprotov5.Schema, error) {
	block, err := convertBlock(b)
	return &tfprotov5.Schema{Block: block}, err
}

// convertBlock makes what may be left out also computed: the package does not tell which of these the provider fills in, and
// taking all to be filled in keeps references to them valid in tests.
func convertBlock(b *schema.Block) (*tfprotov5.SchemaBlock, error) {
	out := &tfprotov5.SchemaBlock{}
	for name, a := range b.Attributes {
		//lint:ignore SA1019 there is no other way from JSON
		kind, err := tftypes.ParseJSONType(a.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov5.SchemaAttribute{Name: name, Type: kind, Required: a.Required, Optional: a.Optional, Computed: !a.Required})
	}
	for name, n := range b.Blocks {
		inner, err := convertBlock(n.Block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if n.Nesting == "single" { // timeouts: they are never filled in
			for _, a := range inner.Attributes {
				a.Computed = false
			}
		}
		nesting := map[string]tfprotov5.SchemaNestedBlockNestingMode{"list": tfprotov5.SchemaNestedBlockNestingModeList, "set": tfprotov5.SchemaNestedBlockNestingModeSet,
			"single": tfprotov5.SchemaNestedBlockNestingModeSingle}[n.Nesting]
		if nesting == tfprotov5.SchemaNestedBlockNestingModeInvalid {
			return nil, fmt.Errorf("%s: nesting %q is not known", name, n.Nesting)
		}
		out.BlockTypes = append(out.BlockTypes, &tfprotov5.SchemaNestedBlock{TypeName: name, Block: inner, Nesting: nesting, MinItems: int64(n.Min), MaxItems: int64(n.Max)})
	}
	return out, nil
}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	out := &tfprotov5.GetMetadataResponse{ServerCapabilities: p.schemas.ServerCapabilities}
	for name := range p.schemas.ResourceSchemas {
		out.Resources = append(out.Resources, tfprotov5.ResourceMetadata{TypeName: name})
	}
	for name := range p.schemas.DataSourceSchemas {
		out.DataSources = append(out.DataSources, tfprotov5.DataSourceMetadata{TypeName: name})
	}
	return out, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	return &p.schemas, nil
}

func (p *provider) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (p *provider) ValidateDataSourceConfig(context.Context, *tfprotov5.ValidateDataSourceConfigRequest) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

// ConfigureProvider is where a plan or an apply without mocks ends.
func (p *provider) ConfigureProvider(context.Context, *tfprotov5.ConfigureProviderRequest) (*tfprotov5.ConfigureProviderResponse, error) {
	return &tfprotov5.ConfigureProviderResponse{Diagnostics: []*tfprotov5.Diagnostic{{Severity: tfprotov5.DiagnosticSeverityError,
		Summary: "this provider has schemas and nothing else", Detail: "It is for terraform validate and for tests with mock_provider. Remove the CLI configuration that names its mirror."}}}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}
